"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lib.models import ModelError, openvino_dir
from lib.prompts import cut_at_stops
from lib.sampling import Completion, Request, Settings, stop_token_ids

IN_FLIGHT = 128  # requests handed to the scheduler at a time; more gains nothing on a few cores


class OpenVinoEngine:
    """The int8 export of `model` with an optional PEFT LoRA adapter folder."""

    name = "openvino"

    def __init__(self, model: str, adapter: str | None = None, cache_gb: int = 2) -> None:
        import openvino_genai as genai
        from transformers import AutoTokenizer

        self._genai = genai
        folder = openvino_dir(model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = cache_gb
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = IN_FLIGHT
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0))}
        if adapter is not None:
            properties["adapters"] = self._adapter_config(Path(adapter))
        self._pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
        self._stop_ids = stop_token_ids(self.tokenizer)

    def _adapter_config(self, folder: Path) -> Any:
        weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
        if not (weights.is_file() and config.is_file()):
            raise ModelError(
                f"{folder}: not a PEFT adapter folder (adapter_model.safetensors, adapter_config.json)"
            )
        lora = json.loads(config.read_text())
        return self._genai.AdapterConfig(self._genai.Adapter(str(weights)), lora["lora_alpha"] / lora["r"])

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish; requests are taken from the iterable as places free up."""
        waiting = iter(requests)
        flying: dict[int, tuple[Request, Any]] = {}
        exhausted, number = False, 0
        while True:
            while not exhausted and len(flying) < IN_FLIGHT:
                request = next(waiting, None)
                if request is None:
                    exhausted = True
                else:
                    flying[number] = (request, self._add(number, request, settings))
                    number += 1
            if not flying:
                return
            self._pipe.step()
            done = [index for index, (_, handle) in flying.items() if handle.get_status() != self._running]
            for index in done:
                request, handle = flying.pop(index)
                yield request, self._completion(handle, request)

    @property
    def _running(self) -> Any:
        return self._genai.GenerationStatus.RUNNING

    def _add(self, number: int, request: Request, settings: Settings) -> Any:
        import numpy
        import openvino

        ids = self.tokenizer(request.text, add_special_tokens=False)["input_ids"]
        return self._pipe.add_request(
            number, openvino.Tensor(numpy.array([ids])), self._config(request, settings)
        )

    def _config(self, request: Request, settings: Settings) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = settings.max_new_tokens
        config.do_sample = settings.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = settings.temperature, settings.top_p
            config.rng_seed = request.seed
        config.stop_token_ids = self._stop_ids
        config.stop_strings = set(request.stops)
        config.include_stop_str_in_output = True
        return config

    def _completion(self, handle: Any, request: Request) -> Completion:
        output = handle.read_all()[0]
        text = self.tokenizer.decode(output.generated_ids, skip_special_tokens=True)
        finished = output.finish_reason == self._genai.GenerationFinishReason.STOP
        return Completion(cut_at_stops(text, request.stops), tuple(output.generated_ids), finished)

    def close(self) -> None:
        """Free the pipeline and its cache."""
        del self._pipe
