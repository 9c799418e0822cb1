#!/bin/bash
# The main job from launch to an empty account, then what it is worth: `make demo` calls this.
# Needs `cloudtrain` with its extras `sandbox` and `train` on the PATH, and the dataset.
# Interrupted, it leaves machine and training as they are: the same command goes on there.
set -euo pipefail
cd "$(dirname "$0")"

# A sandbox that another project uses is left alone at the end.
shared=$(cloudtrain sandbox status --json | grep -c '"running": true' || true)
begun=$SECONDS
echo 'a machine of the emulated cloud, with Python by uv (on AWS the default is Miniconda)'
cloudtrain run -y
cloudtrain evaluate --min-map50 0.8
if [ "$shared" = 0 ]; then
  python check_left.py
fi
echo "from launch to here: $((SECONDS - begun)) s"
