"""What a report says of where its runs were made: not where they were judged."""

from validation_artifacts import save_morse

from mdplugin.validation import provenance
from mdplugin.validation.case import Case
from mdplugin.validation.provenance import note_machine, record_provenance
from mdplugin.validation.systems import find_structure


def test_runs_are_counted_by_the_machine_that_made_them(tmp_path, monkeypatch):
    for name, cpus in {"a": ["one"], "b": ["one", "one"], "c": ["one", "two"]}.items():
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        for cpu in cpus:
            monkeypatch.setattr(
                provenance, "describe_machine", lambda cpu=cpu: {"cpu": cpu, "finished": "now"}
            )
            note_machine(run)
    with (run / provenance.MACHINES).open("a") as file:
        file.write('{"cpu": "tor')
    monkeypatch.setattr(provenance, "describe_machine", lambda: {"cpu": "judge", "finished": "now"})
    case = Case("nve", (str(save_morse(tmp_path / "morse.pt")),), "water")
    structure = find_structure("water-hexamer", "water", (1, 1, 1))
    facts = record_provenance(case, structure, ["mdplugin"], tmp_path / "runs")
    assert facts["cpu"] == "judge"
    assert facts["made_by"] == [{"runs": 3, "cpu": "one"}, {"runs": 1, "cpu": "two"}]
