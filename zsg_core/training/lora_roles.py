"""Says what a target of LoRA names: the roles, which are the same in every family, and
the parts of a layer that each of them stands for.

Plan reads the parts off a family's module or the names of its tensors, a node off the
model's own modules; both ask this table what a target means.
"""

from zsg_core.training.decoder_layers import ATTENTION, EXPERTS, MIXER, MLP, ROUTER

# of each role, the parts of a layer that get adapters
ROLES = {
    "attention": (ATTENTION,),
    "mlp": (MLP,),
    "all": (ATTENTION, MLP, MIXER),
    "routers": (ROUTER,),
    "experts": (EXPERTS,),
}
# of these no module is named by itself, for most families have them as bare tensors
BY_ROLE_ALONE = (ROUTER, EXPERTS)
TIED_MERGE = (
    "train.tuning.start: merge: the model has one table for embedding and output layer"
    " (tie_word_embeddings), and adapters of one of them cannot be added to both; leave them"
    " out of train.tuning.targets, or say start: continue"
)


def find_role(part: str) -> str:
    """The role that stands for a part of a layer, and for as little else as can be."""
    roles = [role for role, parts in ROLES.items() if part in parts]
    return min(roles, key=lambda role: len(ROLES[role]))


def is_name_of(target: str, module: str) -> bool:
    """Whether a target that is no role names a module: by its name, or the end of it."""
    return module == target or module.endswith(f".{target}")


def explain_by_role_alone(target: str, part: str) -> str:
    """Why a target cannot name a router or an expert by itself, and what can."""
    role = find_role(part)
    return (
        f"train.tuning.targets: {target!r} is of the {role} of a layer, which have no names of"
        f" their own in most families; name the role {role}"
    )
