"""The settings for `accelerate launch`, as accelerate itself reads them."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

FOLDER = Path(__file__).parent.parent / "docs" / "accelerate"
KINDS = {"ddp": DistributedType.MULTI_GPU, "fsdp": DistributedType.FSDP, "deepspeed": DistributedType.DEEPSPEED}


def test_there_is_one_file_a_kind() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_knows_every_key_and_takes_the_file_for_what_it_is(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    read = load_config_from_file(str(path))
    assert read.distributed_type == KINDS[name] and read.num_processes == 2
    written = yaml.safe_load(path.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        assert getattr(read, section) == written.get(section, {})


def test_a_key_that_accelerate_does_not_know_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text((FOLDER / "ddp.yaml").read_text() + "num_gpus: 2\n")
    with pytest.raises(ValueError, match="num_gpus"):
        load_config_from_file(str(tmp_path / "odd.yaml"))
