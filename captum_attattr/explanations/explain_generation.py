"""explain_generation: from a prompt to an answer, and what each of its tokens came from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.answer_scores import FACTS, AnswerScorer
from captum_attattr.explanations.answers import Prompt, Writing, encoded_prompt
from captum_attattr.explanations.examples import Example
from captum_attattr.explanations.explain import text_bar
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.generation import GenerationExplanation
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.explanations.translation import Answering
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.journal import Journal

_DESC = "explain generation"
_NODES = 8  # of the Gauss-Legendre rule of every token


@checked_arguments
def explain_generation(
    model: nn.Module,
    tokenizer: Any,
    prompt: Example,
    *,
    max_new_tokens: int | None = None,
    generated: str | Iterable[int] | None = None,
    do_sample: bool = False,
    temperature: float | None = None,
    seed: int | None = None,
    keep: str = "scores",
    attribution: str | None = None,
    output: str | None = None,
    contrast: Any = None,
    path: str | None = None,
    baseline: str | float | None = None,
    n_steps: int | None = None,
    layers: Iterable[int] | None = None,
    attention: bool = True,
    dtype: torch.dtype | str = torch.float32,
    task: str | None = None,
    internal_batch_size: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> GenerationExplanation:
    r"""Say what each token of a model's answer came from: the prompt, or the source, and the answer before it.

    For token g of the answer, :math:`F_g` is the probability that the model gives it behind its prefix, and row g of
    the result's matrix has the token scores of that prefix,

    .. math:: s_{gj} = \sum_l \sum_h \sum_i \mathrm{Attr}_{lh}(A)_{ij},

    by default along the joint path from the sink, as `token_scores` has them, but with eight Gauss-Legendre nodes for
    every token. Since the model is causal, several tokens share the forwards of one text; the numbers are those of
    `explain` for each prefix alone.

    Of an encoder-decoder (translation, summarisation: T5, BART, Marian, mBART, PEGASUS ...) the prompt is the source.
    Three kinds of attention count, each of all layers: the encoder's, cross attention, the decoder's own. The score of
    a token of the source is the sum of its columns in the maps whose keys are the source's: what all queries of the
    encoder took from it, and all tokens of the decoder by cross attention. That of a token of the answer, or of one
    that the decoder starts with, is the sum of its columns in the decoder's own maps. So a row adds up to F(A) - F(B)
    here too. Each token's explanation is a `TranslationExplanation`, with the three kinds of maps beside each other.

    In place of the prompt's tokens the result of an encoder-decoder has those of the source, then those that the
    decoder starts with: its own (`decoder_start_token_id`) and those that have to come first, as a language
    (`forced_bos_token_id`). They are `model.generation_config`'s; of an answer given as text, where none is forced,
    also what the tokenizer's target side puts before it. "chefer", "rollout" and "alti" are refused.

    Args:
        model: a causal language model, as in `explain`, or an encoder-decoder that writes texts.
        tokenizer: its tokenizer.
        prompt: one text, conversation, list of ids or encoding, as in `explain`.
        max_new_tokens: how many tokens the model writes at most; None for 20. It stops at its end token, which is one
            of the answer's.
        generated: the answer, as text or ids, instead of letting the model write one. A text is split as the tokenizer
            splits it behind the prompt; for an encoder-decoder as its target side does (`text_target=`), without an end
            token. Ids of an encoder-decoder may begin with those that the decoder starts with, as `generate` has them;
            of a language model they begin behind the prompt.
        do_sample: let the model sample; else it takes the likeliest token each time.
        temperature: of sampling; None for the model's own. Its other options are those of `model.generation_config`.
        seed: of sampling; torch's own generators stay as they are.
        keep: "scores" alone; or "maps", the whole `Explanation` of each token (a hundred tokens of a model with 30
            layers take gigabytes). Of scores alone, each explanation is computed when it is asked for.
        attribution, output, contrast, path, baseline, layers, task: as in `explain`; `contrast` is one token for all,
            or of a given answer a list with one, or None, for each. None of `attribution` and `baseline`, for the joint
            path from the sink. Layers of an encoder-decoder are numbered in the order in which they run: the encoder's,
            then of each decoder block its own and its cross attention.
        n_steps: nodes of the integral; None for 8, where the method is one.
        attention, dtype: of explanations, as in `explain`.
        internal_batch_size: most rows of one forward; None for a default by device and length.
        resume: a file to which what is done is appended, and from which a run that was killed goes on. Under `torchrun`
            every process does its share. Scores only.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        A `GenerationExplanation`; `plot_generation` draws it.

    Raises:
        TypeError, ValueError: no prompt, or several; an answer that is empty, that the tokenizer splits otherwise
            behind the prompt, that its target side does not know, or longer than the model takes with its prompt; a
            model that writes no text; options that mean nothing; raised before the model runs. A contrast that is a
            token of a written answer.
        UnsupportedModelError: the model's attention cannot be read.

    Warns:
        ConvergenceWarning: scores of the joint path miss F(A) - F(B) by more than a tenth of their sizes: large
            decoders need more nodes, as n_steps=32.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> words = {word: i for i, word in enumerate(["<unk>", "to", "be", "or", "not"])}
        >>> core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        >>> core.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> _ = torch.manual_seed(0)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=5, hidden_size=16, intermediate_size=16,
        ...     num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2)).eval()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
        >>> result = explain_generation(model, tokenizer, "to be or", generated=" not to be", progress=False)
        >>> result.tokens, result.matrix.shape
        (['not', 'to', 'be'], torch.Size([3, 6]))
        >>> result.span(0, 3).scores.shape  # of what the model read
        torch.Size([5])
    """
    attribution, path, baseline, n_steps = _usual(attribution, path, baseline, n_steps)
    options: dict[str, Any] = {"layers": layers, "attention": attention, "dtype": dtype, "n_steps": n_steps}
    options["internal_batch_size"] = internal_batch_size
    settings = Settings.of(attribution=attribution, output=output, path=path, baseline=baseline, **options)
    checks.one_of("keep", keep, ("scores", "maps"))
    writing = Writing.of(generated is not None, max_new_tokens, do_sample, temperature, seed)
    _check_resume(resume, keep, writing)
    answering = Answering.of(model)
    explainer = answering.of_model(model, tokenizer, settings, contrast is not None, task)
    texts = explainer.texts
    begun = answering.prompt(texts, encoded_prompt(texts, prompt))
    if generated is None:
        begun.check_length(writing.max_new_tokens, "max_new_tokens asks for")
        _check_contrast(texts, contrast)
        answer = begun.written(writing)
    else:
        answer = begun.given(generated)
        begun.check_length(len(answer), "generated has")
    ids, contrasts = begun.ids, _contrasts(texts, contrast, answer)
    scorer = answering.scorer(explainer, [*ids, *answer], len(ids), contrasts, begun.item.length)
    values, kept = _scored(scorer, keep, resume, progress)
    scorer.warn_missed(values[:, FACTS:], values[:, 3].tolist(), [texts.label(token) for token in answer])
    return _result(scorer, begun, values, kept, "given" if generated is not None else writing.name, task)


def _usual(attribution: Any, path: Any, baseline: Any, n_steps: Any) -> tuple[Any, Any, Any, Any]:
    """Return the method, path, baseline and nodes; what is not given is the joint path from the sink, in few nodes."""
    if attribution is None:
        attribution = "attattr" if path is not None else "attattr_joint"
    entry = ATTRIBUTIONS.get(attribution) if isinstance(attribution, str) else None
    if entry and entry.maps is None and n_steps is None:
        n_steps = _NODES
    if entry and entry.start and baseline is None:
        baseline = "sink"
    return attribution, path, baseline, n_steps


def _check_resume(resume: Any, keep: str, writing: Writing) -> None:
    """Check that a run can be resumed, before any work.

    Raises:
        TypeError, ValueError: no file, or what is not the same again or not kept in it.
    """
    if resume is None:
        return
    Journal(resume, {}, 0)
    if keep == "maps":
        raise ValueError("resume keeps scores, not keep='maps'; use keep='scores', or leave resume out")
    if writing.do_sample and writing.seed is None:
        raise ValueError("resume: a sampled answer is another one each time; pass a seed")


def _check_contrast(texts: TextModel, contrast: Any) -> None:
    """Check a contrast before the answer is there.

    Raises:
        TypeError, ValueError: several, or no token of the model.
    """
    if isinstance(checks.listed(contrast), list):
        raise ValueError(
            "a list of contrasts goes with an answer that is given; pass one for all tokens, or generated="
        )
    texts.target(0, contrast, "contrast")


def _contrasts(texts: TextModel, contrast: Any, answer: list[int]) -> list[int | None]:
    """Return what each token of an answer is contrasted with.

    Raises:
        TypeError, ValueError: not one for each, no token of the model, or the token itself.
    """
    given = checks.listed(contrast)
    several = given if isinstance(given, list) else [given] * len(answer)
    if len(several) != len(answer):
        raise ValueError(f"contrast lists {len(several)} entries for the {len(answer)} tokens of the answer")
    found = [texts.target(0, each, "contrast") for each in several]
    for position, (one, token) in enumerate(zip(found, answer, strict=True)):
        if one == token:
            raise ValueError(
                f"contrast {several[position]!r} is token {position} of the answer itself; give another one, or "
                "generated= and a list with None there"
            )
    return found


def _scored(scorer: AnswerScorer, keep: str, resume: Any, progress: bool) -> tuple[Tensor, list[Explanation] | None]:
    """Return (G, 4 + T + G) of all tokens, and their explanations if they are kept."""
    if keep == "maps":
        explanations = []
        with text_bar(scorer.count, progress, _DESC) as bar:
            for token in range(scorer.count):
                explanations.append(scorer.explanation(token))
                bar.update(1)
        return torch.stack([scorer.entry(each) for each in explanations]), explanations
    batches = scorer.batches()
    about = {} if resume is None else scorer.about(batches)
    costs = [float(len(batch) * (scorer.length + batch[-1])) for batch in batches]
    return run_batches(batches, scorer.work, about, resume=resume, progress=progress, desc=_DESC, costs=costs), None


def _result(
    scorer: AnswerScorer, begun: Prompt, values: Tensor, kept: list[Explanation] | None, written: str, task: str | None
) -> GenerationExplanation:
    """Put everything together."""
    explainer, ids, length, item = scorer.explainer, scorer.ids, scorer.length, begun.item
    texts, settings = explainer.texts, explainer.settings
    tokens = texts.tokenizer.convert_ids_to_tokens(ids)
    special = special_ids(texts.tokenizer)
    return GenerationExplanation(
        prompt=item.text,
        answer=str(texts.tokenizer.decode(ids[length:])),
        prompt_tokens=tokens[:length],
        tokens=tokens[length:],
        ids=ids,
        special=item.special + [i in special for i in ids[item.length :]],
        values=values[:, 0],
        probabilities=values[:, 1].clamp(0, 1),
        predictions=values[:, 2].long().tolist(),
        matrix=values[:, FACTS:],
        total_delta=values[:, 3],
        written=written,
        output=explainer.output,
        path=settings.path,
        baseline=settings.baseline,
        attribution=settings.name,
        layers=explainer.numbers,
        scheme=texts.scheme,
        contrast=[None if each is None else texts.label(each) for each in scorer.contrasts],
        contrast_ids=scorer.contrasts,
        options={
            "layers": None if settings.layers is None else list(settings.layers),
            "attention": settings.attention,
            "dtype": str(settings.dtype).removeprefix("torch."),
            "n_steps": settings.rule.n_steps,
            "internal_batch_size": settings.rule.internal_batch_size,
            "start": ATTRIBUTIONS[settings.attribution].start,
            "task": task,
            **({"source": item.length} if begun.start else {}),
        },
        kept=kept,
        scorer=scorer,
    )
