"""damm_lite: diffusion models and DAMM-Diffusion, small enough to read.

Read it in this order: data, simulate, tumours, fluorescence, schedules, unet, fusion, damm, gates, losses,
mismatch, train, samplers, predict, baselines, metrics, plotting. Names are loaded when first used, so that
importing the package is quick and brings no plotting along.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "data": ["check_tensor", "chunks", "stack", "to_tensor"],
        "simulate": [
            "Physics",
            "distance_to_vessels",
            "simulate_nanoparticles",
            "simulate_nuclei",
            "simulate_vessels",
            "solve_steady_state",
        ],
        "tumours": [
            "DIVERGENCES",
            "HELD_OUT_SEED",
            "SyntheticTumours",
            "consistent_pair",
            "dropout_pair",
            "misregister",
            "necrosis_pair",
            "random_region",
            "section_pair",
            "shift_pair",
        ],
        "fluorescence": ["FluorescenceDataset", "find_channel", "first_channel", "read_stain", "read_tiff", "stretch"],
        "schedules": [
            "NoiseSchedule",
            "PredictsImage",
            "PredictsNoise",
            "PredictsVelocity",
            "cosine_schedule",
            "linear_schedule",
            "scaled_linear_schedule",
        ],
        "unet": ["UNet", "UNetConfig", "timestep_embedding"],
        "fusion": ["MMFM", "UAFM", "Addition", "Concatenation", "JointConfidence", "PlainAttention", "QueryConfidence"],
        "damm": ["DAMMNet", "DAMMOutput"],
        "gates": [
            "DAMMP",
            "Average",
            "DecideOnce",
            "HardSpatialDAMMP",
            "MultiModal",
            "SpatialDAMMP",
            "UniModal",
        ],
        "losses": ["damm_loss", "released_loss", "warmup_loss"],
        "mismatch": ["make_mismatches"],
        "official": ["load_official_state_dict"],
        "checkpoint": ["load_checkpoint", "load_state", "save_checkpoint", "save_state"],
        "train": [
            "TrainConfig",
            "concat_objective",
            "damm_objective",
            "prepare",
            "released_objective",
            "train",
            "unet_objective",
            "warmup_objective",
        ],
        "run": ["Progress", "fit"],
        "samplers": ["ddim_sampler", "ddim_step", "ddpm_sampler", "dpm_sampler", "posterior", "timestep_grid"],
        "predict": ["Prediction", "predict", "predict_unet"],
        "baselines": ["DistanceBaseline", "concat_regression_objective", "regress", "regression_objective"],
        "metrics": ["bootstrap_interval", "evaluate", "gate_auroc", "mae", "psnr", "ssim", "ssim_map"],
        "ablate": ["FACTORS", "Budget", "Level", "Network", "ablate", "summarise"],
        "download": ["fetch", "load_pretrained"],
        "notebook": ["check_parameters", "load_results", "self_check", "show_source"],
        "plotting": ["image_grid", "show_batch", "show_image", "to_frames"],
        "widgets": ["slider_of_frames"],
    },
)
