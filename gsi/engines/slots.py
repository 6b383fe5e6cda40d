"""The KV cache of the embedded engine: one slot per active response."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer for all slots: (slots, heads, capacity, head size)."""

    is_sliding = False

    def __init__(self, shared: SlotCache):
        super().__init__()
        self.shared = shared

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        s = self.shared
        self.keys = key_states.new_zeros(s.slots, key_states.shape[1], s.capacity, key_states.shape[3])
        self.values = value_states.new_zeros(s.slots, value_states.shape[1], s.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        s = self.shared
        assert self.keys is not None
        assert self.values is not None
        if s.source is not None:  # prefill: every slot takes a copy of its prompt's keys
            q = key_states.shape[2]
            self.keys[s.target, :, :q] = key_states[s.source]
            self.values[s.target, :, :q] = value_states[s.source]
            return key_states, value_states
        rows = key_states.shape[0]
        self.keys[s.target[:rows], :, s.positions] = key_states[:, :, 0]
        self.values[s.target[:rows], :, s.positions] = value_states[:, :, 0]
        return self.keys[:rows, :, : s.longest], self.values[:rows, :, : s.longest]

    def resize(self, keep: int) -> None:
        """Room for the shared slots and capacity; the first `keep` slots stay."""
        if self.is_initialized:
            s = self.shared
            for name in ("keys", "values"):
                old = getattr(self, name)
                new = old.new_zeros(s.slots, old.shape[1], s.capacity, old.shape[3])
                length = min(old.shape[2], s.capacity)
                new[:keep, :, :length] = old[:keep, :, :length]
                setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.shared.longest, 0

    def get_seq_length(self) -> int:
        return 0 if self.shared.source is not None else self.shared.longest - 1

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """A KV cache of slots; `prefill`, `decode` say what the next forward pass writes."""

    layers: list[Any]

    def __init__(self, max_slots: int, max_tokens: int):
        me = weakref.proxy(self)  # no cycle: the memory of a cache that is let go must be free at once, not at the next collection
        super().__init__(layer_class_to_replicate=lambda *a, **k: SlotLayer(me))  # type: ignore[arg-type]
        self.max_slots, self.max_tokens = max_slots, max_tokens
        self.slots, self.capacity, self.longest = 0, 0, 0
        self.source: torch.Tensor | None = None
        self.target = self.positions = torch.empty(0, dtype=torch.long)

    def prefill(self, slots: list[int], source: list[int]) -> None:
        self.source, self.target = torch.tensor(source), torch.tensor(slots)

    def decode(self, positions: torch.Tensor, longest: int) -> None:
        self.source, self.target, self.positions, self.longest = None, torch.arange(self.slots, device=positions.device), positions, longest

    def reserve(self, rows: int, used: int, length: int, longest: int) -> None:
        """Room for `rows` slots of `length` tokens, of which the first `used` are in use; they may grow to `longest`.

        As long as rows x longest is within max_tokens, so is what is held.
        """
        if rows <= self.slots and length <= self.capacity:
            return
        growing = max(length, 32, self.capacity * 3 // 2) if length > self.capacity else self.capacity
        self.capacity = max(length, min(longest, growing))
        self.slots = max(rows, min(self.max_slots, self.max_tokens // self.capacity))
        for layer in self.layers:
            layer.resize(used)

    def move(self, moves: list[tuple[int, int]]) -> None:
        """Copies slots, in order: (from, to)."""
        for layer in self.layers:
            for a, b in moves:
                layer.keys[b] = layer.keys[a]
                layer.values[b] = layer.values[a]
