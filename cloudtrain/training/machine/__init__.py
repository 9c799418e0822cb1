"""What runs beside a training on the machine, sent there with each session.

Plain modules for Python 3.8 and up, the standard library only (`yolo` adds ultralytics): they
import one another and nothing else of cloudtrain.
"""
