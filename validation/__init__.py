"""Validation: dynamics with an artifact and with its float64 reference -> observables -> verdict -> report.

    from mdplugin.validation.case import Case
    from mdplugin.validation.study import validate

    case = Case("nve", ("water-fp32.pt",), "water", length_ps=2.0, replicas=3)
    report = validate(case, "water-nve")

Nothing is imported here: `mdplugin --help` needs one small module of this package and must answer at once.
"""
