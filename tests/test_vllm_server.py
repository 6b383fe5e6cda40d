"""The contract suite through a real vLLM server, launched by the engine, where GSI_VLLM_PYTHON names an interpreter that has vLLM."""

import asyncio
import inspect
import os
from pathlib import Path

import pytest
import test_engine_contract as contract
import torch
from test_openai_engine import all_gone, free_port
from transformers import LlamaConfig, LlamaForCausalLM

from gsi.config.engines import OpenAIEngine as Settings
from gsi.engines.openai import OpenAIEngine

REAL = os.environ.get("GSI_VLLM_PYTHON")
pytestmark = pytest.mark.skipif(not REAL, reason="GSI_VLLM_PYTHON names no interpreter with vLLM; `make test-vllm` sets it")

OPTIONS = "--dtype float32 --enforce-eager --block-size 32 --max-num-batched-tokens 16384 --enable-prompt-tokens-details"
CHECKS = [
    contract.test_every_request_is_answered_once_and_one_engine_runs_many_workloads,
    contract.test_the_seed_decides_a_sample_and_nothing_else_does,
    contract.test_greedy_is_what_the_embedded_engine_decodes,
    contract.test_a_given_prefix_is_continued_and_not_repeated,
    contract.test_a_stop_string_ends_a_response_before_it,
    contract.test_max_new_tokens_gives_finish_reason_length,
    contract.test_prompts_that_do_not_fit_are_data,
    contract.test_a_failing_request_is_data_and_harms_no_other,
    contract.test_stop_abandons_what_is_in_flight,
    contract.test_an_exception_in_put_propagates,
    contract.test_a_query_stops_when_its_quota_is_met,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vLLM's attention on a CPU wants heads of 32."""
    path = tmp_path_factory.mktemp("model") / "llama"
    torch.manual_seed(1)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"vocab_size": len(contract.TOKENIZER), "eos_token_id": 0, "bos_token_id": None, "pad_token_id": None}
    LlamaForCausalLM(LlamaConfig(max_position_embeddings=contract.CONTEXT, initializer_range=0.3, **shape, **ids)).save_pretrained(path)
    contract.TOKENIZER.save_pretrained(path)
    return str(path)


def group(leader: int) -> list[int]:
    """Processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended
        if int(fields[2]) == leader:
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def made(folder):
    port = free_port()
    command = f"env OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 {REAL} -m vllm.entrypoints.openai.api_server --model {{model}} --port {port} {OPTIONS}"
    engine = OpenAIEngine(Settings(url=f"http://127.0.0.1:{port}/v1", launch=command, concurrency=8), folder, contract.TOKENIZER)
    members = group(engine._server._process.pid)
    assert len(members) >= 3, "watchdog, API server, engine core"
    yield contract.Made(engine, lambda: None, lambda: len(asyncio.all_tasks(engine._loop)))
    engine.close()
    assert all_gone(*members)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("test_"))
def test_vllm_server(check, made, folder, tmp_path):
    assert made.engine.capabilities == {"prefix", "seeds", "ids"}
    parts = {"made": made, "folder": folder, "tmp_path": tmp_path}
    check(**{name: parts[name] for name in inspect.signature(check).parameters})


def test_what_vllm_reuses_is_counted(made):
    before = dict(made.engine.stats)
    contract.run(made, contract.make(4, "x" * 70, max_new_tokens=2))
    stats = {k: v - before[k] for k, v in made.engine.stats.items()}
    assert stats["prefill_tokens"] + stats["reused_tokens"] == 4 * 70
    assert stats["reused_tokens"] >= 64, "two blocks of 32 by the last one at least"
