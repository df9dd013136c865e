"""`mdplugin numerics`: what each number type costs in each block of a MACE, beside a first-order model."""
