"""The other half of the registry."""

import transformers

AttentionMaskInterface = transformers.AttentionMaskInterface
