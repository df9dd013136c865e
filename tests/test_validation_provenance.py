"""What a report says of where its runs were made: not where they were judged."""

from validation_artifacts import save_morse

from mdplugin import machine
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


def test_another_line_of_code_is_another_code(tmp_path, monkeypatch):
    assert len(machine.describe_machine()["code"]) == 64
    for name in ("machine.py", "kernel.cpp"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    hashes = []
    for text in ("1", "2", "1"):
        (tmp_path / "kernel.cpp").write_text(text)
        hashes.append(machine.hash_code.__wrapped__())
    assert hashes[0] == hashes[2] != hashes[1]
