"""The command line: parse, call one workflow, show the result, and nothing else."""
