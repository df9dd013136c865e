#!/bin/bash
# The second stage of the bundled water potential: 4 epochs on the frames and on clusters of molecules that are too near,
# half an hour on two CPU cores, float64, seed 1.
#   finetune.sh DATA_DIRECTORY [MODEL] [NAME]
# DATA_DIRECTORY and MODEL are those of train.sh.
set -euo pipefail
data=${1:?give the directory of train.xyz, valid.xyz, test.xyz}
model=${2:-water_pbe0ts_16L1.model}
name=${3:-water_pbe0ts_16L1_contacts}
export OMP_NUM_THREADS=2
{ cat "$data/train.xyz"; gunzip -c "$(dirname "$0")/contacts.xyz.gz"; } > "$name-train.xyz"
exec mace_run_train --name="$name" --foundation_model="$model" --multiheads_finetuning=False \
 --train_file="$name-train.xyz" --valid_file="$data/valid.xyz" --test_file="$data/test.xyz" \
 --energy_key=REF_energy --forces_key=REF_forces --E0s="{1: -13.605693, 8: -440.657365}" \
 --loss=weighted --forces_weight=100 --energy_weight=500 \
 --optimizer=adam --amsgrad --lr=0.004 --weight_decay=5e-7 --clip_grad=10 --ema --ema_decay=0.995 \
 --scheduler=ExponentialLR --lr_scheduler_gamma=0.5 --max_num_epochs=4 --batch_size=1 --valid_batch_size=2 --eval_interval=1 \
 --error_table=PerAtomRMSE --device=cpu --default_dtype=float64 --seed=1 --save_cpu
