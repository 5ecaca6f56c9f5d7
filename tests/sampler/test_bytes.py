"""What is counted of the bytes that decode steps read and that rows hold."""

from __future__ import annotations

from thinkprm_jax.sampler import Force, Request, Sampler, Think


def think(budget):
    def script():
        yield Think(budget)

    return script


def bytes_of(sampler):
    stats = sampler.stats
    return [
        number // sampler.position_bytes
        for number in (
            stats.cache_bytes_read,
            stats.cache_bytes_live,
            stats.peak_cache_bytes,
            stats.peak_live_bytes,
        )
    ]


def test_xlas_attention_reads_every_row_to_the_end_and_the_columns(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=3, max_length=256, chunk=8, drafts=0, products="xla")
    list(sampler.run([Request([5, 6, 7, 8, 9], think(3))]))
    # Four tokens are prefilled. Three steps see five, six and seven; the last sample is never fed.
    assert sampler.stats.decode_steps == 3
    assert bytes_of(sampler) == [3 * 3 * (128 + 8), 5 + 6 + 7, 3 * (128 + 8), 7]


def test_rows_are_counted_together_and_peaks_stay(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=256, chunk=8, drafts=0, products="xla")
    list(sampler.run([Request([5, 6, 7], think(2)), Request([5, 6, 7, 8], think(2))]))
    read, live, held, most = bytes_of(sampler)
    assert (live, most) == (3 + 4 + 4 + 5, 4 + 5)
    list(sampler.run([Request([5, 6], think(1))]))
    assert bytes_of(sampler) == [read + 2 * 136, live + 2, held, most]


def test_a_wide_step_reads_what_a_row_has_once(tiny_model, mini_tokenizer):
    """Eight forced tokens in one step are one reading of the row, where narrow steps read it eight times."""

    def script():
        yield Force(range(20, 28))
        yield Think(1)

    sampler = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=256, chunk=8, drafts=8, products="xla")
    list(sampler.run([Request([5, 6, 7], script)]))
    assert sampler.stats.decode_steps == sampler.stats.wide_steps == 1
    assert bytes_of(sampler)[1] == 2 + 9
