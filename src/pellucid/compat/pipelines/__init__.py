"""The tasks under the reference's names, arguments and result shapes: `pipeline(task, model)`."""

from pellucid.compat.pipelines.answering import QuestionAnsweringPipeline as QuestionAnsweringPipeline
from pellucid.compat.pipelines.answering import TableQuestionAnsweringPipeline as TableQuestionAnsweringPipeline
from pellucid.compat.pipelines.base import Pipeline as Pipeline
from pellucid.compat.pipelines.generating import SummarizationPipeline as SummarizationPipeline
from pellucid.compat.pipelines.generating import Text2TextGenerationPipeline as Text2TextGenerationPipeline
from pellucid.compat.pipelines.generating import TextGenerationPipeline as TextGenerationPipeline
from pellucid.compat.pipelines.generating import TranslationPipeline as TranslationPipeline
from pellucid.compat.pipelines.making import pipeline as pipeline
from pellucid.compat.pipelines.tagging import TokenClassificationPipeline as TokenClassificationPipeline
from pellucid.compat.pipelines.texts import FeatureExtractionPipeline as FeatureExtractionPipeline
from pellucid.compat.pipelines.texts import FillMaskPipeline as FillMaskPipeline
from pellucid.compat.pipelines.texts import TextClassificationPipeline as TextClassificationPipeline
from pellucid.compat.pipelines.texts import ZeroShotClassificationPipeline as ZeroShotClassificationPipeline
