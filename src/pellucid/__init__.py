"""Pellucid: pretrained transformers, one line away, in a library that one person can read.

    from pellucid import AutoModelForCausalLM, AutoTokenizer, pipeline

Names are imported when they are first used: configs, tokenizers and errors never import torch.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pellucid.compat.audio_logits import AlternatingCodebooksLogitsProcessor as AlternatingCodebooksLogitsProcessor
    from pellucid.compat.audio_logits import BarkEosPrioritizerLogitsProcessor as BarkEosPrioritizerLogitsProcessor
    from pellucid.compat.audio_logits import (
        DiaClassifierFreeGuidanceLogitsProcessor as DiaClassifierFreeGuidanceLogitsProcessor,
    )
    from pellucid.compat.audio_logits import DiaEOSChannelFilterLogitsProcessor as DiaEOSChannelFilterLogitsProcessor
    from pellucid.compat.audio_logits import DiaEOSDelayPatternLogitsProcessor as DiaEOSDelayPatternLogitsProcessor
    from pellucid.compat.audio_logits import WhisperNoSpeechDetection as WhisperNoSpeechDetection
    from pellucid.compat.audio_logits import WhisperTimeStampLogitsProcessor as WhisperTimeStampLogitsProcessor
    from pellucid.compat.auto import (
        AutoModel as AutoModel,
    )
    from pellucid.compat.auto import (
        AutoModelForCausalLM as AutoModelForCausalLM,
    )
    from pellucid.compat.auto import (
        AutoModelForDocumentQuestionAnswering as AutoModelForDocumentQuestionAnswering,
    )
    from pellucid.compat.auto import (
        AutoModelForMaskedLM as AutoModelForMaskedLM,
    )
    from pellucid.compat.auto import (
        AutoModelForMultipleChoice as AutoModelForMultipleChoice,
    )
    from pellucid.compat.auto import (
        AutoModelForNextSentencePrediction as AutoModelForNextSentencePrediction,
    )
    from pellucid.compat.auto import (
        AutoModelForPreTraining as AutoModelForPreTraining,
    )
    from pellucid.compat.auto import (
        AutoModelForQuestionAnswering as AutoModelForQuestionAnswering,
    )
    from pellucid.compat.auto import (
        AutoModelForSeq2SeqLM as AutoModelForSeq2SeqLM,
    )
    from pellucid.compat.auto import (
        AutoModelForSequenceClassification as AutoModelForSequenceClassification,
    )
    from pellucid.compat.auto import (
        AutoModelForTableQuestionAnswering as AutoModelForTableQuestionAnswering,
    )
    from pellucid.compat.auto import (
        AutoModelForTextEncoding as AutoModelForTextEncoding,
    )
    from pellucid.compat.auto import (
        AutoModelForTokenClassification as AutoModelForTokenClassification,
    )
    from pellucid.compat.auto_text import AutoConfig as AutoConfig
    from pellucid.compat.auto_text import AutoTokenizer as AutoTokenizer
    from pellucid.compat.auto_text import PreTrainedTokenizer as PreTrainedTokenizer
    from pellucid.compat.auto_text import PreTrainedTokenizerBase as PreTrainedTokenizerBase
    from pellucid.compat.auto_text import PreTrainedTokenizerFast as PreTrainedTokenizerFast
    from pellucid.compat.auto_text import TokenizersBackend as TokenizersBackend
    from pellucid.compat.evaluation import evaluate as evaluate
    from pellucid.compat.generate_outputs import BeamSampleDecoderOnlyOutput as BeamSampleDecoderOnlyOutput
    from pellucid.compat.generate_outputs import BeamSampleEncoderDecoderOutput as BeamSampleEncoderDecoderOutput
    from pellucid.compat.generate_outputs import BeamSearchDecoderOnlyOutput as BeamSearchDecoderOnlyOutput
    from pellucid.compat.generate_outputs import BeamSearchEncoderDecoderOutput as BeamSearchEncoderDecoderOutput
    from pellucid.compat.generate_outputs import (
        ContrastiveSearchDecoderOnlyOutput as ContrastiveSearchDecoderOnlyOutput,
    )
    from pellucid.compat.generate_outputs import (
        ContrastiveSearchEncoderDecoderOutput as ContrastiveSearchEncoderDecoderOutput,
    )
    from pellucid.compat.generate_outputs import GenerateBeamDecoderOnlyOutput as GenerateBeamDecoderOnlyOutput
    from pellucid.compat.generate_outputs import GenerateBeamEncoderDecoderOutput as GenerateBeamEncoderDecoderOutput
    from pellucid.compat.generate_outputs import GenerateDecoderOnlyOutput as GenerateDecoderOnlyOutput
    from pellucid.compat.generate_outputs import GenerateEncoderDecoderOutput as GenerateEncoderDecoderOutput
    from pellucid.compat.generate_outputs import GreedySearchDecoderOnlyOutput as GreedySearchDecoderOnlyOutput
    from pellucid.compat.generate_outputs import GreedySearchEncoderDecoderOutput as GreedySearchEncoderDecoderOutput
    from pellucid.compat.generate_outputs import SampleDecoderOnlyOutput as SampleDecoderOnlyOutput
    from pellucid.compat.generate_outputs import SampleEncoderDecoderOutput as SampleEncoderDecoderOutput
    from pellucid.compat.generation import GenerationMixin as GenerationMixin
    from pellucid.compat.guided_logits import (
        ClassifierFreeGuidanceLogitsProcessor as ClassifierFreeGuidanceLogitsProcessor,
    )
    from pellucid.compat.guided_logits import HammingDiversityLogitsProcessor as HammingDiversityLogitsProcessor
    from pellucid.compat.guided_logits import (
        UnbatchedClassifierFreeGuidanceLogitsProcessor as UnbatchedClassifierFreeGuidanceLogitsProcessor,
    )
    from pellucid.compat.logits import EncoderNoRepeatNGramLogitsProcessor as EncoderNoRepeatNGramLogitsProcessor
    from pellucid.compat.logits import (
        EncoderRepetitionPenaltyLogitsProcessor as EncoderRepetitionPenaltyLogitsProcessor,
    )
    from pellucid.compat.logits import EpsilonLogitsWarper as EpsilonLogitsWarper
    from pellucid.compat.logits import EtaLogitsWarper as EtaLogitsWarper
    from pellucid.compat.logits import ExponentialDecayLengthPenalty as ExponentialDecayLengthPenalty
    from pellucid.compat.logits import ForcedBOSTokenLogitsProcessor as ForcedBOSTokenLogitsProcessor
    from pellucid.compat.logits import ForcedEOSTokenLogitsProcessor as ForcedEOSTokenLogitsProcessor
    from pellucid.compat.logits import InfNanRemoveLogitsProcessor as InfNanRemoveLogitsProcessor
    from pellucid.compat.logits import LogitNormalization as LogitNormalization
    from pellucid.compat.logits import LogitsProcessor as LogitsProcessor
    from pellucid.compat.logits import LogitsProcessorList as LogitsProcessorList
    from pellucid.compat.logits import MinLengthLogitsProcessor as MinLengthLogitsProcessor
    from pellucid.compat.logits import MinNewTokensLengthLogitsProcessor as MinNewTokensLengthLogitsProcessor
    from pellucid.compat.logits import MinPLogitsWarper as MinPLogitsWarper
    from pellucid.compat.logits import NoBadWordsLogitsProcessor as NoBadWordsLogitsProcessor
    from pellucid.compat.logits import NoRepeatNGramLogitsProcessor as NoRepeatNGramLogitsProcessor
    from pellucid.compat.logits import PrefixConstrainedLogitsProcessor as PrefixConstrainedLogitsProcessor
    from pellucid.compat.logits import RepetitionPenaltyLogitsProcessor as RepetitionPenaltyLogitsProcessor
    from pellucid.compat.logits import SequenceBiasLogitsProcessor as SequenceBiasLogitsProcessor
    from pellucid.compat.logits import SuppressTokensAtBeginLogitsProcessor as SuppressTokensAtBeginLogitsProcessor
    from pellucid.compat.logits import SuppressTokensLogitsProcessor as SuppressTokensLogitsProcessor
    from pellucid.compat.logits import TemperatureLogitsWarper as TemperatureLogitsWarper
    from pellucid.compat.logits import TopHLogitsWarper as TopHLogitsWarper
    from pellucid.compat.logits import TopKLogitsWarper as TopKLogitsWarper
    from pellucid.compat.logits import TopPLogitsWarper as TopPLogitsWarper
    from pellucid.compat.logits import TypicalLogitsWarper as TypicalLogitsWarper
    from pellucid.compat.modeling import PreTrainedModel as PreTrainedModel
    from pellucid.compat.pipelines import FeatureExtractionPipeline as FeatureExtractionPipeline
    from pellucid.compat.pipelines import FillMaskPipeline as FillMaskPipeline
    from pellucid.compat.pipelines import Pipeline as Pipeline
    from pellucid.compat.pipelines import QuestionAnsweringPipeline as QuestionAnsweringPipeline
    from pellucid.compat.pipelines import SummarizationPipeline as SummarizationPipeline
    from pellucid.compat.pipelines import TableQuestionAnsweringPipeline as TableQuestionAnsweringPipeline
    from pellucid.compat.pipelines import Text2TextGenerationPipeline as Text2TextGenerationPipeline
    from pellucid.compat.pipelines import TextClassificationPipeline as TextClassificationPipeline
    from pellucid.compat.pipelines import TextGenerationPipeline as TextGenerationPipeline
    from pellucid.compat.pipelines import TokenClassificationPipeline as TokenClassificationPipeline
    from pellucid.compat.pipelines import TranslationPipeline as TranslationPipeline
    from pellucid.compat.pipelines import ZeroShotClassificationPipeline as ZeroShotClassificationPipeline
    from pellucid.compat.pipelines import pipeline as pipeline
    from pellucid.compat.quantizing import BitsAndBytesConfig as BitsAndBytesConfig
    from pellucid.compat.sentences import CrossEncoder as CrossEncoder
    from pellucid.compat.sentences import SentenceTransformer as SentenceTransformer
    from pellucid.compat.stopping import ConfidenceCriteria as ConfidenceCriteria
    from pellucid.compat.stopping import EosTokenCriteria as EosTokenCriteria
    from pellucid.compat.stopping import MaxLengthCriteria as MaxLengthCriteria
    from pellucid.compat.stopping import MaxTimeCriteria as MaxTimeCriteria
    from pellucid.compat.stopping import StoppingCriteria as StoppingCriteria
    from pellucid.compat.stopping import StoppingCriteriaList as StoppingCriteriaList
    from pellucid.compat.stopping import StopStringCriteria as StopStringCriteria
    from pellucid.compat.streamers import AsyncTextIteratorStreamer as AsyncTextIteratorStreamer
    from pellucid.compat.streamers import TextIteratorStreamer as TextIteratorStreamer
    from pellucid.compat.streamers import TextStreamer as TextStreamer
    from pellucid.compat.watermarking import (
        BayesianDetectorConfig as BayesianDetectorConfig,
    )
    from pellucid.compat.watermarking import (
        BayesianDetectorModel as BayesianDetectorModel,
    )
    from pellucid.compat.watermarking import (
        SynthIDTextWatermarkDetector as SynthIDTextWatermarkDetector,
    )
    from pellucid.compat.watermarking import (
        SynthIDTextWatermarkLogitsProcessor as SynthIDTextWatermarkLogitsProcessor,
    )
    from pellucid.compat.watermarking import WatermarkDetector as WatermarkDetector
    from pellucid.compat.watermarking import (
        WatermarkLogitsProcessor as WatermarkLogitsProcessor,
    )
    from pellucid.engine.options import GenerationConfig as GenerationConfig
    from pellucid.engine.watermark.configs import SynthIDTextWatermarkingConfig as SynthIDTextWatermarkingConfig
    from pellucid.engine.watermark.configs import WatermarkingConfig as WatermarkingConfig
    from pellucid.errors import PellucidError as PellucidError
    from pellucid.models.plan import plan as plan
    from pellucid.tasks.vectors import cos_sim as cos_sim
    from pellucid.tasks.vectors import dot_score as dot_score
    from pellucid.tasks.vectors import quantize_embeddings as quantize_embeddings
    from pellucid.tasks.vectors import semantic_search as semantic_search
    from pellucid.text.chats.schema import get_json_schema as get_json_schema
    from pellucid.text.encoding import BatchEncoding as BatchEncoding
    from pellucid.text.lines import Lines as Lines
    from pellucid.text.training.train import train_tokenizer as train_tokenizer
    from pellucid.text.vocabulary import AddedToken as AddedToken

_HOMES = {
    "AddedToken": "text.vocabulary",
    "AutoConfig": "compat.auto_text",
    "AutoTokenizer": "compat.auto_text",
    "AutoModel": "compat.auto",
    "AutoModelForCausalLM": "compat.auto",
    "AutoModelForMaskedLM": "compat.auto",
    "AutoModelForQuestionAnswering": "compat.auto",
    "AutoModelForSeq2SeqLM": "compat.auto",
    "AutoModelForSequenceClassification": "compat.auto",
    "AutoModelForTokenClassification": "compat.auto",
    "AutoModelForMultipleChoice": "compat.auto",
    "AutoModelForNextSentencePrediction": "compat.auto",
    "AutoModelForPreTraining": "compat.auto",
    "AutoModelForTableQuestionAnswering": "compat.auto",
    "AutoModelForDocumentQuestionAnswering": "compat.auto",
    "AutoModelForTextEncoding": "compat.auto",
    "BatchEncoding": "text.encoding",
    "BitsAndBytesConfig": "compat.quantizing",
    "GenerationConfig": "engine.options",
    "PellucidError": "errors",
    "get_json_schema": "text.chats.schema",
    "plan": "models.plan",
    "evaluate": "compat.evaluation",
    "CrossEncoder": "compat.sentences",
    "SentenceTransformer": "compat.sentences",
    "cos_sim": "tasks.vectors",
    "dot_score": "tasks.vectors",
    "quantize_embeddings": "tasks.vectors",
    "semantic_search": "tasks.vectors",
    "GenerationMixin": "compat.generation",
    "PreTrainedModel": "compat.modeling",
    "PreTrainedTokenizer": "compat.auto_text",
    "PreTrainedTokenizerBase": "compat.auto_text",
    "PreTrainedTokenizerFast": "compat.auto_text",
    "TokenizersBackend": "compat.auto_text",
    "AsyncTextIteratorStreamer": "compat.streamers",
    "TextIteratorStreamer": "compat.streamers",
    "TextStreamer": "compat.streamers",
    "pipeline": "compat.pipelines",
    "Pipeline": "compat.pipelines",
    "Lines": "text.lines",
    "train_tokenizer": "text.training.train",
    "BayesianDetectorConfig": "compat.watermarking",
    "BayesianDetectorModel": "compat.watermarking",
    "SynthIDTextWatermarkDetector": "compat.watermarking",
    "SynthIDTextWatermarkLogitsProcessor": "compat.watermarking",
    "WatermarkDetector": "compat.watermarking",
    "WatermarkLogitsProcessor": "compat.watermarking",
    "SynthIDTextWatermarkingConfig": "engine.watermark.configs",
    "WatermarkingConfig": "engine.watermark.configs",
}
_PROCESSORS = """
    LogitsProcessor LogitsProcessorList
    TemperatureLogitsWarper TopKLogitsWarper TopPLogitsWarper MinPLogitsWarper TopHLogitsWarper TypicalLogitsWarper
    EpsilonLogitsWarper EtaLogitsWarper RepetitionPenaltyLogitsProcessor EncoderRepetitionPenaltyLogitsProcessor
    NoRepeatNGramLogitsProcessor EncoderNoRepeatNGramLogitsProcessor SequenceBiasLogitsProcessor
    NoBadWordsLogitsProcessor MinLengthLogitsProcessor MinNewTokensLengthLogitsProcessor
    PrefixConstrainedLogitsProcessor ForcedBOSTokenLogitsProcessor ForcedEOSTokenLogitsProcessor
    InfNanRemoveLogitsProcessor ExponentialDecayLengthPenalty LogitNormalization SuppressTokensLogitsProcessor
    SuppressTokensAtBeginLogitsProcessor
    """
_OF_AUDIO = """
    WhisperTimeStampLogitsProcessor WhisperNoSpeechDetection BarkEosPrioritizerLogitsProcessor
    AlternatingCodebooksLogitsProcessor DiaClassifierFreeGuidanceLogitsProcessor DiaEOSChannelFilterLogitsProcessor
    DiaEOSDelayPatternLogitsProcessor
    """
_GUIDED = """
    ClassifierFreeGuidanceLogitsProcessor UnbatchedClassifierFreeGuidanceLogitsProcessor HammingDiversityLogitsProcessor
    """
_CRITERIA = """
    StoppingCriteria StoppingCriteriaList MaxLengthCriteria MaxTimeCriteria EosTokenCriteria StopStringCriteria
    ConfidenceCriteria
    """
_OUTPUTS = """
    GenerateDecoderOnlyOutput GenerateEncoderDecoderOutput GenerateBeamDecoderOnlyOutput
    GenerateBeamEncoderDecoderOutput GreedySearchDecoderOnlyOutput GreedySearchEncoderDecoderOutput
    SampleDecoderOnlyOutput SampleEncoderDecoderOutput ContrastiveSearchDecoderOnlyOutput
    ContrastiveSearchEncoderDecoderOutput BeamSearchDecoderOnlyOutput BeamSearchEncoderDecoderOutput
    BeamSampleDecoderOnlyOutput BeamSampleEncoderDecoderOutput
    """
_PIPELINES = """
    FeatureExtractionPipeline FillMaskPipeline QuestionAnsweringPipeline SummarizationPipeline
    TableQuestionAnsweringPipeline Text2TextGenerationPipeline TextClassificationPipeline TextGenerationPipeline
    TokenClassificationPipeline TranslationPipeline ZeroShotClassificationPipeline
    """
_HOMES |= dict.fromkeys(_PIPELINES.split(), "compat.pipelines")
_HOMES |= dict.fromkeys(_OUTPUTS.split(), "compat.generate_outputs")
_HOMES |= dict.fromkeys(_OF_AUDIO.split(), "compat.audio_logits")
_HOMES |= dict.fromkeys(_GUIDED.split(), "compat.guided_logits")
_HOMES |= dict.fromkeys(_PROCESSORS.split(), "compat.logits") | dict.fromkeys(_CRITERIA.split(), "compat.stopping")
__all__ = sorted(_HOMES)  # noqa: PLE0605  the names above


def _load(module: str) -> Any:
    """Imports with the garbage collector at rest: importing torch makes many objects and no garbage (0.1 s of 1)."""
    running = gc.isenabled()
    gc.disable()
    try:
        return import_module(f"pellucid.{module}")
    finally:
        if running:
            gc.enable()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(_load(_HOMES[name]), name)
    elif name.endswith(("Tokenizer", "TokenizerFast")):  # BertTokenizer, LlamaTokenizerFast …
        value = _load("compat.auto_text").tokenizer_class(name)
    elif name[0].isupper() and ("For" in name or name.endswith("Model")):  # LlamaForCausalLM, BertModel …
        value = _load("compat.modeling").class_named(name)
    else:
        value = None
    if value is None:
        from pellucid.errors import nearest

        raise AttributeError(f"pellucid has no {name!r}. {nearest(name, _HOMES)}".rstrip())
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
