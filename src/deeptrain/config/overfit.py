"""overfit=N: a network learns N images by heart. What would keep it from that is turned off."""

from omegaconf import DictConfig, OmegaConf

from deeptrain.schema import PositiveInt, format_value, type_error

GROUPS = ("aug", "penalty", "gradient", "average")
SETTINGS = {
    "data.crop_padding": 0,
    "data.flip": False,
    "loss.label_smoothing": 0.0,
    "max_norm": None,
    "model.drop_connect": 0.0,
    "model.dropout": 0.0,
    "model.stochastic_depth": 0.0,
    "optimizer.weight_decay": 0.0,
    "sam": None,
}


def expand_overfit(config: DictConfig, chosen: dict[str, str]) -> list[str]:
    """Turn regularization off in a composed configuration, if overfit is set; return what was on, as one types it."""
    count = config.get("overfit")
    if count is None or type_error(count, PositiveInt):
        return []
    turned_off = []
    for group in GROUPS:
        if config.get(group):
            names = list(config[group]) if group == "aug" else [chosen[group]]
            turned_off += [f"{group}={name}" for name in names]
            config[group], chosen[group] = {}, "none"
    for key, off in SETTINGS.items():
        value = OmegaConf.select(config, key)
        if value is not None and value != off:
            turned_off.append(f"{key}={format_value(value)}")
            OmegaConf.update(config, key, off)
    OmegaConf.update(config, "data.augment", False)  # no random windows of large pictures either
    OmegaConf.update(config, "data.train_images", count)
    OmegaConf.update(config, "data.loader", "resident")  # few pictures are decoded once
    OmegaConf.update(config, "validate.clean_images", 0)  # val is measured on them anyway
    return turned_off
