"""All config keys with their meaning, unit and default. Experiments start from this config and change some keys.

Any key can be changed on the command line: `--config.data.batch_size=64`. An unknown key is an error.
"""

from ml_collections import ConfigDict, FieldReference


def get_config() -> ConfigDict:
    """Returns the defaults: a VP score model with EDM's preconditioning."""
    config = ConfigDict()

    # The forward process, over t in [0, t_max]. Keys of processes other than `name` are ignored.
    config.sde = sde = ConfigDict()
    sde.name = "vp"  # vp, subvp, ve, cosine, edm, rectified_flow, ddpm, iddpm, scaled_linear, critically_damped
    sde.t_max = 1.0  # time of the prior: less than 1 for cosine and rectified_flow, sigma_max for edm
    sde.beta_min = 0.1  # vp, subvp: beta at t = 0
    sde.beta_max = 20.0  # vp, subvp: beta at t = 1
    sde.sigma_min = 0.01  # ve: sigma at t = 0, in units of data in [-1, 1]
    sde.sigma_max = 50.0  # ve: sigma at t = 1; a good value is the largest distance between two images
    sde.num_steps = 1000  # ddpm, iddpm, scaled_linear: number of steps of the chain
    # ddpm, scaled_linear: beta of the first step; 0 selects the published value (1e-4; 0.0015) times 1000 / num_steps
    sde.beta_first = 0.0
    # ddpm, scaled_linear: beta of the last step; 0 selects the published value (0.02; 0.0195) times 1000 / num_steps
    sde.beta_last = 0.0
    sde.beta_limit = 0.999  # iddpm: upper limit of beta
    sde.offset = 0.008  # cosine, iddpm: offset s, which keeps beta positive at t = 0
    sde.beta = 4.0  # critically_damped: rate of the diffusion, per unit of time
    sde.mass = 0.25  # critically_damped: variance of the velocity at t_max
    sde.gamma = 0.04  # critically_damped: variance of the velocity at t = 0, in units of the mass

    # The score network: options of the U-Net. Options of the other networks are documented in their files in models/.
    config.model = model = ConfigDict()
    # unet, adm, ddpm, ncsnpp, edm2, dit, ncsn, ncsnv2, mlp (of vectors); classifiers: unet_classifier, wideresnet_classifier
    model.name = "unet"
    model.channels = 128  # base number of channels: output channels of the first convolution
    model.channel_multipliers = (1, 2, 2, 2)  # channels per level, in units of model.channels; resolutions halve
    model.blocks_per_level = 2  # residual blocks at each resolution
    model.attention_resolutions = (16,)  # heights, in pixels, with self-attention
    model.middle_attention = True  # attention between the two blocks of the coarsest level
    model.head_channels = 64  # channels per attention head; 0 uses num_heads instead
    model.num_heads = 1  # number of attention heads if head_channels is 0
    model.dropout = 0.1  # dropout probability in the residual blocks
    model.augment_features = 0  # condition `augmentation`: its number of labels, 9 with data.augmentation; 0 disables
    model.num_classes = 0  # condition `label`: the number of classes; 0 is unconditional
    model.embedding = "positional"  # embedding of the noise level: positional, positional_adm, fourier
    # Attention on the way up: block (after every block), level (only after the last block of each level)
    model.up_attention = "block"
    model.norm_groups = 0  # groups of every norm; 0 selects 32, or fewer to have at least 4 channels per group
    model.norm_epsilon = 1e-6  # added to the variance in every norm
    model.out_channels = 0  # number of output channels; 0 uses the number of the input
    model.learned_variance = False  # also predict a variance; the Denoiser uses only the mean
    model.scale_shift = True  # the embedding scales and shifts after each norm (ADM); if False, shifts before it (DDPM)
    model.resampling = (
        "conv"  # between levels: conv, strided, strided_symmetric (convolutions), block (a residual block), plain
    )
    model.fourier_scale = 16.0  # fourier: standard deviation of the frequencies
    model.dtype = "float32"  # dtype of the computation: float32, bfloat16; parameters are float32
    model.remat = False  # recompute activations in the backward pass: less memory, a third more time

    # Input scaling and output type of the network.
    config.parameterization = parameterization = ConfigDict()
    parameterization.name = "edm"  # edm, noise, score, data, v, velocity (of the probability flow)
    parameterization.sigma_data = 0.5  # edm, score: standard deviation of the data in [-1, 1]
    # score: whether to scale the network's input to unit variance; False for networks of score_sde
    parameterization.scale_input = True
    parameterization.sigma_scale = 1.0  # score: the network's unit of sigma; 0.5 if trained on data in [0, 1]
    # score: number of noise levels, for a network conditioned on the index of the level; 0 conditions it on log(sigma)
    parameterization.levels = 0
    parameterization.time_scale = 999.0  # noise, data, v, velocity: noise_level = time_scale * t + time_offset
    parameterization.time_offset = 0.0  # noise, data, v: -1, with time_scale=1000, for networks of the indices 0 to 999

    # The training objective.
    config.objective = objective = ConfigDict()
    objective.name = "denoising"  # denoising, classification (a classifier of noisy data, for guidance)

    # Conditions of the network in addition to the noise level: one section each.
    config.condition = condition = ConfigDict()
    condition.label = label = ConfigDict()
    label.dropout = 0.0  # class-conditional models: probability of "no class", for classifier-free guidance

    # Denoising score matching.
    config.loss = loss = ConfigDict()
    # edm, noise, score, likelihood, data, v, velocity: 1 on the error of that name; min_snr, soft_min_snr, sigmoid;
    # hybrid, hybrid_noise: critically_damped's score matching, 1 on the error of the velocity's score or noise
    loss.weighting = "edm"
    loss.snr_gamma = 5.0  # min_snr, soft_min_snr: upper limit of the weight of the error in x0; published: 5 and 4
    loss.sigmoid_bias = 2.0  # sigmoid: log-SNR (natural) at which the weight of the error in the noise is one half
    # log_normal (of sigma / alpha), uniform (in t), log_snr (uniform in log-SNR), logit_normal (of t),
    # geometric_sigma (SMLD's levels), discrete (DDPM's t = i t_max / N)
    loss.times = "log_normal"
    loss.log_sigma_mean = -1.2  # log_normal: EDM's P_mean, natural logarithm
    loss.log_sigma_std = 1.2  # log_normal: EDM's P_std
    loss.logit_mean = 0.0  # logit_normal: mean of logit(t); negative values favour times near the data
    loss.logit_std = 1.0  # logit_normal: standard deviation of logit(t)
    loss.discrete_levels = 1000  # geometric_sigma, discrete: number of times
    # Reduction of the error over pixels: mean, half_sum (score_sde's VE; it changes the effect of gradient clipping)
    loss.reduction = "mean"
    loss.importance = False  # divide by the density of the times, so that the loss is the average over uniform times
    loss.low_discrepancy = False  # spread the times of a batch evenly over their distribution
    loss.learned_uncertainty = False  # learn a weight for each noise level (EDM2); the loss may be negative
    loss.uncertainty_channels = 128  # learned_uncertainty: features of the noise level

    # The data. Images are uint8 at the source, and in [-1, 1] for the model.
    config.data = data = ConfigDict()
    # Type of data: image; latent (of data.source=latents); array: float arrays of any shape, with data.event_shape and
    # data.range instead of the keys of images (sizes, channels, resizing, flips)
    data.medium = "image"
    data.source = "digits"  # digits, npz:PATH, folder:PATH, hf:NAME, arrayrecord:PATTERN
    data.resize = "none"  # images of another size: none (refused), center_crop (cropped and resized to image_size)
    data.background = "white"  # colour behind transparent pixels of image files: a CSS name, or #rrggbb
    # Level of white in images that do not have 8 bits, such as 65535, or 4095 for 12 bits; 0 refuses such images
    data.white = 0.0
    # Height and width in pixels: a number for squares, or a text HEIGHTxWIDTH, such as "48x64"
    data.image_size = FieldReference(32, field_type=object)
    data.num_channels = 3  # channels of an image: 1 grey, 3 RGB, 4 RGB multiplied by alpha, and alpha
    data.event_shape = ()  # array: shape of one array, such as 12 or 16,16,16,1; empty: the shape in the file
    data.range = (0.0, 0.0)  # array: the values that are mapped to -1 and 1 for the model, such as -3,3; required
    data.batch_size = 128  # examples per step, over all devices
    data.test_fraction = 0.1  # held-out fraction, if the source has no test images; selected by a hash of each image
    data.validation_fraction = 0.0  # fraction excluded from training and test, selected by the same hash; 0 disables
    # Memory for images, in 1e9 bytes: decoded images of at most this size stay in memory, others are read when needed
    data.memory_gb = 4.0
    data.random_flip = True  # mirror images left to right at random, in training
    data.augmentation = 0.0  # EDM's augmentation, a condition of the network: probability of each transform; 0 disables
    data.dequantization = "none"  # of training images: none, uniform (noise as wide as a grey level; for likelihoods)
    # Processes that read batches in advance, for sources that decode; 0 reads in a thread. Batches do not depend on it
    data.workers = 0
    data.worker_timeout = 300.0  # seconds without a batch after which training stops

    # The training loop. Steps are updates of the parameters.
    config.training = training = ConfigDict()
    training.num_steps = 500_000  # total number of steps
    training.steps_per_call = 10  # steps in one compiled call
    training.checkpoint_every = 5_000  # steps between checkpoints
    training.keep_checkpoints = 2  # number of the newest checkpoints to keep
    training.log_every = 100  # steps between logged rows
    training.sample_every = 10_000  # steps between sample grids of the EMA model and updates of report.html
    # Writers of logged rows: jsonl (metrics.jsonl, required for the report), tensorboard, wandb, trackio
    training.writers = ("jsonl", "tensorboard")
    training.tracking_project = "ornstein"  # wandb, trackio: project of the run
    training.loss_bins = 10  # number of bins of the logged loss by noise level, evenly spaced in log-SNR; 0 disables
    training.measure_peak = True  # time a large matrix product at the start (under a second), as reference of the MFU
    # The moving average of the parameters. warmup: decay ema_decay, smaller in the first steps (score_sde);
    # constant: decay ema_decay from the first step; half_life (EDM); power: weights by a power of time (EDM2).
    # Several averages are separated by commas, each with its own numbers after colons instead of the keys below, as in
    # "power:0.05,power:0.1,half_life:500000:0.05"; each costs as much memory as the parameters (see sampling.ema)
    training.ema = "warmup"
    training.ema_decay = 0.9999  # warmup, constant: the decay, the weight of the old average in each update
    training.ema_half_life = 500_000  # half_life: images after which the weight of a step is halved
    training.ema_ramp = 0.05  # half_life: upper limit of the half-life, in units of the images seen; 0 disables
    training.ema_std = 0.05  # power: relative width of the average, in units of the training's length; at most 0.288
    training.ema_snapshot_every = 0  # steps between snapshots of power averages, for sampling.ema_std; 0 disables
    training.ema_snapshot_dtype = "float32"  # dtype of the snapshots: float32, float16 (half the space; EDM2)
    training.on_nonfinite = "stop"  # on a non-finite loss or gradient: stop, skip (the step changes no weight)
    training.max_skips = 100  # skip: number of skipped steps of a run after which training stops
    training.t_min = 1e-5  # smallest time of the loss
    training.seed = 0  # seed of the initial parameters, the order of the data, times, noise and dropout

    config.optim = optim = ConfigDict()
    optim.name = "adam"  # adam, adamw (decays only matrices), muon (hidden matrices and kernels; else adamw)
    optim.lr = 2e-4  # learning rate after the warm-up
    optim.warmup_steps = 5_000  # steps of the linear warm-up from 0
    optim.schedule = "constant"  # after the warm-up: constant, cosine (to 0 at num_steps), inverse_sqrt
    optim.decay_steps = 70_000  # inverse_sqrt: step at which the decay starts; the rate is half at four times this step
    optim.beta1 = 0.9  # decay of the mean of gradients
    optim.beta2 = 0.999  # decay of the mean of squared gradients
    optim.eps = 1e-8  # added to the root of the mean square
    optim.momentum = 0.95  # muon: Nesterov momentum of the matrices
    optim.weight_decay = 0.0  # decoupled weight decay, per unit of learning rate; with adam, of all weights
    optim.grad_clip = 1.0  # upper limit of the global norm of the gradient; 0 disables clipping
    optim.accumulate = 1  # number of parts of a batch whose gradients are accumulated, to save memory; same result

    # Sampling by `sample`, `evaluate` and the grids during training.
    config.sampling = sampling = ConfigDict()
    # Average of the parameters: the text of one of training.ema, such as "power:0.1"; "" selects the first one
    sampling.ema = ""
    # Width of a post-hoc EMA, reconstructed from the snapshots of training.ema_snapshot_every; 0 disables
    sampling.ema_std = 0.0
    # Evaluations of the Denoiser per sample, with the recommended sampler and times (docs/methods.md), without a fit;
    # 0 disables, so that sampler, steps and times apply. Setting one of these three on the command line disables it too
    sampling.evaluations = 0
    # heun, ddim, dpm_solver, dpm_solver_singlestep, unipc, deis, probability_flow, ancestral, euler_maruyama,
    # reverse_diffusion, langevin, predictor_corrector, adaptive, sscs (critically_damped)
    sampling.sampler = "heun"
    sampling.steps = 18  # number of steps, including the denoising step
    sampling.times = "karras"  # spacing of the times: karras, uniform, log_snr, quadratic
    sampling.rho = 7.0  # karras: 1 is uniform in sigma / alpha, infinity uniform in its logarithm
    sampling.t_min = 1e-3  # time of the denoising step
    sampling.batch_size = 256  # samples per batch on each device; does not change the samples
    # class-conditional models: number of the class, for a trained run also its name; -1 draws sample i from class
    # i mod num_classes, and in `evaluate` classes in the proportions of the reference
    sampling.label = -1
    # Guidance: D_weak + scale (D - D_weak)
    sampling.guidance = guidance = ConfigDict()
    guidance.name = "linear"  # linear, or module:name of a user's component, called with D, D_weak and the scale
    guidance.scale = 1.0  # 1 disables guidance, 0 draws from the weak model; published scales are between 1.2 and 8
    guidance.low = 0.0  # lower end of the guided noise levels: guidance applies where low < sigma / alpha <= high
    guidance.high = float("inf")  # upper end of the guided noise levels; with low, about (0.2, 2] (Kynkaanniemi et al.)
    guidance.rescale = 0.0  # fraction by which the standard deviation of D is restored (published: 0.7); 0 disables
    guidance.threshold = 0.0  # quantile of dynamic thresholding (0.95 to 0.999), 1 for static clipping; 0 disables
    # The weak model (autoguidance) or a classifier: another run, RUN or RUN@STEP; "" is the model without its class
    guidance.guide = ""
    sampling.eta = 0.0  # ddim: 0 is deterministic, 1 ancestral
    sampling.order = 2  # dpm_solver, dpm_solver_singlestep, unipc, deis: 1 to 3; sscs: 1 or 2
    sampling.variable = "log_snr"  # dpm_solver, unipc, deis: variable of the polynomial: log_snr, angle, time
    sampling.corrected = False  # deis: correct each step with the evaluation at its end, as in unipc
    sampling.stochastic = 0.0  # dpm_solver, unipc: 0 is the probability flow, 1 the reverse-time SDE
    sampling.lower_order_final = False  # dpm_solver, unipc, deis: lower the order in the last steps
    sampling.tolerance = 1e-3  # adaptive: relative and absolute tolerance of a step's error; needs sampling.steps = 2
    sampling.max_steps = 4096  # adaptive: maximum number of steps per example, including rejected steps
    sampling.churn = 0.0  # heun: S_churn
    sampling.churn_min = 0.05  # heun: S_min, of sigma / alpha
    sampling.churn_max = 50.0  # heun: S_max
    sampling.churn_noise = 1.003  # heun: S_noise
    sampling.predictor = "reverse_diffusion"  # predictor_corrector: any one-step sampler
    sampling.snr = 0.16  # langevin and predictor_corrector: signal-to-noise ratio, sets the Langevin step size
    sampling.corrector_steps = 1  # langevin and predictor_corrector: Langevin steps at each time
    sampling.langevin_norm = "process"  # process, sample, batch: see sde_lib/sampling/correctors.py

    # Evaluation of the EMA model by `evaluate`.
    config.evaluation = evaluation = ConfigDict()
    evaluation.num_samples = 5_000  # number of samples, and maximum number of held-out images to compare with
    # Feature network: perceptron (fitted to the training images), efficientnet-lite0, inception,
    # inception-tf1, inception-clean (their Frechet distance is the FID), dinov2-vits14, dinov2-vitb14, dinov2-vitl14
    evaluation.features = "perceptron"
    # Further metrics, separated by commas: gaussian_kernel_distance, or a user's metric such as my_metrics:VENDI
    evaluation.metrics = ""
    # Published weight file of the feature network; efficientnet-lite0's weights are part of an installed package
    evaluation.feature_weights = ""
    evaluation.reference = "held_out"  # real images to compare with: held_out, training (all; as in published values)
    evaluation.statistics = ""  # file of the reference's statistics, which runs can share; empty computes them
    evaluation.neighbours = 10_000  # number of samples and of real images compared in pairs; time is quadratic in it
    evaluation.training_images = 50_000  # number of training images searched for copies; 0 disables the search
    evaluation.noise_levels = 10  # number of noise levels of the held-out loss, evenly spaced in log-SNR
    evaluation.t_min = 1e-3  # smallest time of the held-out loss
    evaluation.likelihood_images = 0  # number of held-out images for bits per dimension; 0 disables
    evaluation.likelihood_t_min = 1e-5  # time at which the likelihood is evaluated
    evaluation.likelihood_probes = 1  # number of probe vectors of the divergence estimate (Hutchinson)
    evaluation.likelihood_tolerance = 1e-5  # relative and absolute tolerance of the ODE solver
    evaluation.seed = 1_000_000  # seed of the samples; differs from usual seeds of `sample`

    config.parallel = parallel = ConfigDict()
    # pmap: one program per device, gradients averaged; fsdp: parameters, optimizer and EMA are sharded
    parallel.strategy = "pmap"

    return config
