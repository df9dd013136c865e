#!/bin/bash
# The recipe of the bundled 3BPA potential: float64, seed 1, 60 epochs, 35 minutes on one shared CPU core.
#   train.sh DATA_DIRECTORY [NAME]
# DATA_DIRECTORY holds train.xyz, valid.xyz and test.xyz (extended XYZ with REF_energy in eV and REF_forces in eV/Å).
# E0s: the energies of isolated atoms that come with the data set.
set -euo pipefail
data=${1:?give the directory of train.xyz, valid.xyz, test.xyz}
name=${2:-3bpa_wb97x_32L1}
export OMP_NUM_THREADS=1
exec mace_run_train --name="$name" --model=MACE --interaction_first=RealAgnosticInteractionBlock \
 --train_file="$data/train.xyz" --valid_file="$data/valid.xyz" --test_file="$data/test.xyz" \
 --energy_key=REF_energy --forces_key=REF_forces \
 --E0s="{1: -13.587222780835477, 6: -1029.4889999855063, 7: -1484.9814568572233, 8: -2041.9816003861047}" \
 --r_max=5.0 --num_radial_basis=8 --num_cutoff_basis=5 --max_ell=2 --correlation=3 --num_interactions=2 \
 --hidden_irreps="32x0e + 32x1o" --MLP_irreps=16x0e --radial_MLP="[32, 32, 32]" \
 --loss=weighted --forces_weight=100 --energy_weight=10 --scaling=rms_forces_scaling \
 --optimizer=adam --amsgrad --lr=0.01 --weight_decay=5e-7 --clip_grad=10 --ema --ema_decay=0.99 \
 --scheduler=ExponentialLR --lr_scheduler_gamma=0.94 --max_num_epochs=60 --batch_size=5 --valid_batch_size=10 --eval_interval=5 \
 --error_table=PerAtomRMSE --device=cpu --default_dtype=float64 --seed=1 --save_cpu
