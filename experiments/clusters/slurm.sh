#!/bin/bash
# A raygrid grid as a Slurm job: Ray starts on every node of the job, the command runs on the first.
#
#   raygrid submit slurm --nodes 2 --gpus-per-node 4 --time 8:00:00 -- python experiments/full_grid.py --scale paper
#
# submits it, and shows it with --print. Change what you like and submit it with `sbatch`.
#SBATCH --job-name=raygrid
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=8:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=raygrid-%j.log

# The job has the environment of the shell that submits it. Activate a virtual environment before,
# or here, with the modules that your cluster needs:
# module load cuda; source .venv/bin/activate

exec python -m raygrid.engine.slurm.job --notice 300 -- python experiments/full_grid.py --scale paper
