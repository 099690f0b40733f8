"""Hosts of other versions than the pack was made with."""

import host
import other_host

# Helpers that the pack can do without; the contract says what is lost.
HELPERS = (
    "ACCELERATOR_ERROR",
    "ExecutionBlocker",
    "QuantizedTensor",
    "SchedulerHandler",
    "attention_pytorch",
    "count_cache_layers",
    "is_oom",
    "prepare_callback",
)


def test_renamed_helpers_cost_no_node(tmp_path):
    with host.Server(base=other_host.base(tmp_path), tree=other_host.comfyui(tmp_path, renamed=HELPERS)) as server:
        assert len(other_host.own_nodes(server.client)) == 8, server.log_text()
        assert host.saved_file(server.client.run(other_host.small_edit()), server.base).is_file()
        assert "Traceback" not in server.log_text()
