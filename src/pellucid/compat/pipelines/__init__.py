"""The tasks under the reference's names, arguments and result shapes: `pipeline(task, model)`."""

from pellucid.compat.pipelines.base import Pipeline as Pipeline
from pellucid.compat.pipelines.making import pipeline as pipeline
