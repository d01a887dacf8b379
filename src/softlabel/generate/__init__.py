"""Generators: a latent diffusion model of the real images, and images made with it."""

from softlabel.generate._autoencoder import (
    KINDS,
    AutoencoderConfig,
    adopt_autoencoder,
    build_autoencoder,
    load_autoencoder,
    survives,
    train_autoencoder,
)
from softlabel.generate._budget import generate_within
from softlabel.generate._choose import CHOICES, PICKS, Choice, Chosen, best_of, choose_images, min_max, prototypes
from softlabel.generate._coder import Autoencoder, psnr
from softlabel.generate._denoiser import DENOISERS, Denoiser, build_denoiser
from softlabel.generate._diffusion import SAMPLERS, SCHEDULES, check_sampling, guided, noised, run_sampler
from softlabel.generate._forecast import (
    Forecast,
    GivenAutoencoder,
    check_generator_options,
    forecast_denoiser,
    forecast_generator,
    generator_places,
    given_autoencoder,
    image_seconds,
    place_on,
)
from softlabel.generate._generator import (
    Generator,
    GeneratorConfig,
    Sampling,
    load_generator,
    train_generator,
)
from softlabel.generate._measures import Nearest, agreement, confidences, frechet_distance, image_features, nearest_real
from softlabel.generate._processes import Processes, launched
from softlabel.generate._steps import Course, Draws, train_steps

__all__ = [
    "CHOICES",
    "DENOISERS",
    "KINDS",
    "PICKS",
    "SAMPLERS",
    "SCHEDULES",
    "Autoencoder",
    "AutoencoderConfig",
    "Choice",
    "Chosen",
    "Course",
    "Denoiser",
    "Draws",
    "Forecast",
    "Generator",
    "GeneratorConfig",
    "GivenAutoencoder",
    "Nearest",
    "Processes",
    "Sampling",
    "adopt_autoencoder",
    "agreement",
    "best_of",
    "build_autoencoder",
    "build_denoiser",
    "check_generator_options",
    "check_sampling",
    "choose_images",
    "confidences",
    "forecast_denoiser",
    "forecast_generator",
    "frechet_distance",
    "generate_within",
    "generator_places",
    "given_autoencoder",
    "guided",
    "image_features",
    "image_seconds",
    "launched",
    "load_autoencoder",
    "load_generator",
    "min_max",
    "nearest_real",
    "noised",
    "place_on",
    "prototypes",
    "psnr",
    "run_sampler",
    "survives",
    "train_autoencoder",
    "train_generator",
    "train_steps",
]
