#!/bin/bash
# The first stage of the bundled water potential: 10 epochs, about an hour on one CPU core, float64, seed 1.
#   train.sh DATA_DIRECTORY [NAME]
# DATA_DIRECTORY holds train.xyz, valid.xyz and test.xyz (extended XYZ with REF_energy in eV and REF_forces in eV/Å).
# For other data change --E0s (one isolated-atom energy per element), --r_max and the sizes.
set -euo pipefail
data=${1:?give the directory of train.xyz, valid.xyz, test.xyz}
name=${2:-water_pbe0ts_16L1}
export OMP_NUM_THREADS=1
exec mace_run_train --name="$name" --model=MACE --interaction_first=RealAgnosticInteractionBlock \
 --train_file="$data/train.xyz" --valid_file="$data/valid.xyz" --test_file="$data/test.xyz" \
 --energy_key=REF_energy --forces_key=REF_forces --E0s="{1: -13.605693, 8: -440.657365}" \
 --r_max=4.5 --num_radial_basis=8 --num_cutoff_basis=5 --max_ell=3 --correlation=3 --num_interactions=2 \
 --hidden_irreps="16x0e + 16x1o" --MLP_irreps=16x0e --radial_MLP="[32, 32, 32]" \
 --loss=weighted --forces_weight=100 --energy_weight=500 --scaling=rms_forces_scaling \
 --optimizer=adam --amsgrad --lr=0.01 --weight_decay=5e-7 --clip_grad=10 --ema --ema_decay=0.995 \
 --scheduler=ExponentialLR --lr_scheduler_gamma=0.75 --max_num_epochs=10 --batch_size=1 --valid_batch_size=2 --eval_interval=1 \
 --error_table=PerAtomRMSE --device=cpu --default_dtype=float64 --seed=1 --save_cpu
