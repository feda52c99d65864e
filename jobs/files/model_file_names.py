"""The names of the files of a Hugging Face model folder: those that are copied, and
those that zsg's own folders have.

Only what stands here is copied into a snapshot or a base: a folder may hold anything
beside the model.
"""

# Of every tokenizer class of transformers 5.23 (VOCAB_FILES_NAMES), and what all
# classes read beside them.
TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "tekken.json",
)
LEGACY_TEMPLATE = "chat_template.json"  # of a processor; a tokenizer does not read it
TEMPLATE_NAMES = ("chat_template.jinja", LEGACY_TEMPLATE)
TEMPLATE_FOLDER = "additional_chat_templates"
GENERATION = "generation_config.json"

# What transformers loads weights from: the first of these that is there, or the index
# in its place, before the second.
SINGLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHT_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

# Patterns of what lies in folders of weights that zsg made; older versions of it copied
# by broader ones.
MADE_BESIDE_WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    GENERATION,
    "README.md",
    "tokenizer*",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "tekken.json",
    "chat_template*",
    TEMPLATE_FOLDER,
)
