"""The pressure of a stress. Apart from other observables: who records runs needs no statistics."""

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError


def find_pressure(atoms: ase.Atoms, *, include_ideal_gas: bool = False) -> float:
    """Minus a third of the stress's trace, bar, with the momenta's part or of the virial alone; NaN without a stress."""
    try:
        stress = atoms.get_stress(include_ideal_gas=include_ideal_gas)
    except PropertyNotImplementedError:
        return np.nan
    return -stress[:3].mean() / units.bar
