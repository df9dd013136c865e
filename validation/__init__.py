"""Validation: dynamics with an artifact and with its float64 reference -> observables -> verdict -> report.

    from mdplugin.validation.nve import NveCase, validate_nve

    case = NveCase("water-fp32.pt", "water", "ase", steps=2000, timestep_fs=0.5, temperature_K=300)
    report = validate_nve(case, "water-fp32-nve")
    report.verdict.outcome, report.measures.candidate.drift.value

Nothing is imported here: `mdplugin --help` needs one small module of this package and must answer at once.
"""
