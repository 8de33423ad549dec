"""Every key there is, with its meaning, unit and default. An experiment starts from here and changes what it needs.

Any key can be changed on the command line: `--config.data.batch_size=64`. A key that is not here is an error.
"""

from ml_collections import ConfigDict, FieldReference


def get_config() -> ConfigDict:
    """The defaults: a VP score model with EDM's preconditioning."""
    config = ConfigDict()

    # The forward process, over t in [0, t_max]. Keys of another process than `name` are not read.
    config.sde = sde = ConfigDict()
    sde.name = "vp"  # vp, subvp, ve, cosine, edm, rectified_flow, ddpm, iddpm, scaled_linear, critically_damped
    sde.t_max = 1.0  # the time of the prior: less than 1 for cosine and rectified_flow, sigma_max for edm
    sde.beta_min = 0.1  # vp, subvp: beta at t = 0
    sde.beta_max = 20.0  # vp, subvp: beta at t = 1
    sde.sigma_min = 0.01  # ve: sigma at t = 0, in units of data in [-1, 1]
    sde.sigma_max = 50.0  # ve: sigma at t = 1; a good value is the largest distance between two images
    sde.num_steps = 1000  # ddpm, iddpm, scaled_linear: steps of the chain
    # ddpm, scaled_linear: beta of the first step; 0 takes the published one (1e-4; 0.0015), times 1000 / num_steps
    sde.beta_first = 0.0
    # ddpm, scaled_linear: beta of the last step; 0 takes the published one (0.02; 0.0195), times 1000 / num_steps
    sde.beta_last = 0.0
    sde.beta_limit = 0.999  # iddpm: upper limit of beta
    sde.offset = 0.008  # cosine, iddpm: s, which keeps beta from vanishing at t = 0
    sde.beta = 4.0  # critically_damped: the speed, per unit of time
    sde.mass = 0.25  # critically_damped: the velocity's variance at t_max
    sde.gamma = 0.04  # critically_damped: the velocity's variance at t = 0, in units of the mass

    # The score network: the options of the U-Net. Those of the others are explained in their files in models/.
    config.model = model = ConfigDict()
    # unet, adm, ddpm, ncsnpp, edm2, dit, ncsn, ncsnv2, mlp (of vectors); classifiers: unet_classifier, wideresnet_classifier
    model.name = "unet"
    model.channels = 128  # at full resolution; of the first convolution
    model.channel_multipliers = (1, 2, 2, 2)  # one resolution each, halved from one to the next
    model.blocks_per_level = 2  # residual blocks at each resolution
    model.attention_resolutions = (16,)  # heights, in pixels, that get self-attention
    model.middle_attention = True  # attention between the two blocks of the coarsest level
    model.head_channels = 64  # channels of one attention head; 0 leaves the choice to num_heads
    model.num_heads = 1  # attention heads, where head_channels is 0
    model.dropout = 0.1  # probability, in the residual blocks
    model.augment_features = 0  # condition `augmentation`: its number of labels, 9 with data.augmentation; 0 disables
    model.num_classes = 0  # condition `label`: the number of classes; 0 is unconditional
    model.embedding = "positional"  # of the noise level: positional, positional_adm, fourier
    model.up_attention = "block"  # on the way up: after every block, or after the last of its level (level)
    model.norm_groups = 0  # groups of every norm; 0 is 32, or fewer where they would have less than 4 channels
    model.norm_epsilon = 1e-6  # added to the variance in every norm
    model.out_channels = 0  # of the output; 0 is as many as the input has
    model.learned_variance = False  # also predict a variance; the Denoiser takes the mean alone
    model.scale_shift = True  # the embedding scales and shifts after each norm (ADM), or shifts before it (DDPM)
    model.resampling = (
        "conv"  # between levels: conv, strided, strided_symmetric (convolutions), block (a residual block), plain
    )
    model.fourier_scale = 16.0  # fourier: the standard deviation of the frequencies
    model.dtype = "float32"  # of the computation: float32, bfloat16; parameters are float32
    model.remat = False  # recompute activations in the backward pass: less memory, a third more time

    # What the network sees and what its output means.
    config.parameterization = parameterization = ConfigDict()
    parameterization.name = "edm"  # edm, noise, score, data, v, velocity (of the probability flow)
    parameterization.sigma_data = 0.5  # edm, score: standard deviation of the data in [-1, 1]
    parameterization.scale_input = True  # score: the network's input has unit variance; score_sde's networks have not
    parameterization.sigma_scale = 1.0  # score: the network's unit of sigma; 0.5 for one that was trained on [0, 1]
    parameterization.levels = 0  # score: of a network that is told the number of its noise level; 0 tells it log(sigma)
    parameterization.time_scale = 999.0  # noise, data, v, velocity: noise_level = time_scale * t + time_offset
    parameterization.time_offset = 0.0  # noise, data, v: -1, with a scale of 1000, for networks of the indices 0 to 999

    # What is trained.
    config.objective = objective = ConfigDict()
    objective.name = "denoising"  # denoising, classification (a classifier of noisy data, for guidance)

    # Conditions of the network, beside the noise level: one section each.
    config.condition = condition = ConfigDict()
    condition.label = label = ConfigDict()
    label.dropout = 0.0  # class-conditional models: probability of "no class", for classifier-free guidance

    # Denoising score matching.
    config.loss = loss = ConfigDict()
    # edm, noise, score, likelihood, data, v, velocity: 1 on the error of that name; min_snr, soft_min_snr, sigmoid;
    # hybrid, hybrid_noise: critically_damped's score matching, 1 on the error of the velocity's score or noise
    loss.weighting = "edm"
    loss.snr_gamma = 5.0  # min_snr, soft_min_snr: the largest weight of the error in x0; published: 5 and 4
    loss.sigmoid_bias = 2.0  # sigmoid: the log-SNR (natural) at which the noise's error weighs one half
    # log_normal (of sigma / alpha), uniform (in t), log_snr (uniform in log-SNR), logit_normal (of t),
    # geometric_sigma (SMLD's levels), discrete (DDPM's t = i t_max / N)
    loss.times = "log_normal"
    loss.log_sigma_mean = -1.2  # log_normal: EDM's P_mean, natural logarithm
    loss.log_sigma_std = 1.2  # log_normal: EDM's P_std
    loss.logit_mean = 0.0  # logit_normal: less than 0 is nearer to the data
    loss.logit_std = 1.0  # logit_normal
    loss.discrete_levels = 1000  # geometric_sigma, discrete: the number of times
    loss.reduction = (
        "mean"  # of the error over the pixels: mean, half_sum (score_sde's VE: clipping sees the difference)
    )
    loss.importance = False  # divide by the density of the times: the average is over uniform times whatever they are
    loss.low_discrepancy = False  # spread the times of a batch evenly over their distribution
    loss.learned_uncertainty = False  # learn how much each noise level counts (EDM2); the loss may fall below 0
    loss.uncertainty_channels = 128  # learned_uncertainty: features of the noise level

    # The data. Images are uint8 at the source, and [-1, 1] for the model.
    config.data = data = ConfigDict()
    # image; latent (of data.source=latents); array: float arrays of any shape, which reads data.event_shape and
    # data.range instead of the keys of images (sizes, channels, resizing, flips)
    data.medium = "image"
    data.source = "digits"  # digits, npz:PATH, folder:PATH, hf:NAME, arrayrecord:PATTERN
    data.resize = "none"  # images of another size: none (refused), center_crop (cropped and resized to image_size)
    data.background = "white"  # colour behind transparent pixels of image files: a name of CSS, or #rrggbb
    data.white = (
        0.0  # level that is white in images that are not of 8 bits, as 65535, or 4095 for 12 bits; 0 refuses these
    )
    # Height and width in pixels: a number for squares, or a text HEIGHTxWIDTH, as "48x64"
    data.image_size = FieldReference(32, field_type=object)
    data.num_channels = 3  # of an image: 1 grey, 3 RGB, 4 RGB multiplied by alpha, and alpha
    data.event_shape = ()  # array: shape of one array, as 12 or 16,16,16,1; none: found in the file
    data.range = (0.0, 0.0)  # array: the values that are -1 and 1 for the model, as -3,3; must be stated
    data.batch_size = 128  # of all devices together
    data.test_fraction = 0.1  # held out, where the source has no test images of its own; a hash of each image decides
    data.validation_fraction = 0.0  # set apart from training and test in the same way; 0 is none
    data.memory_gb = (
        4.0  # 1e9 bytes: images that take no more, decoded, are kept in memory; others are read when needed
    )
    data.random_flip = True  # mirror images left to right at random, in training
    data.augmentation = 0.0  # EDM's, a condition of the network: probability of each of its motions; 0 disables
    data.dequantization = "none"  # of training images: none, uniform (noise as wide as a grey level; for likelihoods)
    data.workers = (
        0  # processes that read batches ahead, for sources that decode; 0 reads in a thread. The same batches
    )
    data.worker_timeout = 300.0  # seconds without a batch after which training stops

    # The training loop. Steps are updates of the parameters.
    config.training = training = ConfigDict()
    training.num_steps = 500_000  # of the whole training
    training.steps_per_call = 10  # steps in one compiled call
    training.checkpoint_every = 5_000  # steps
    training.keep_checkpoints = 2  # the newest ones
    training.log_every = 100  # steps
    training.sample_every = 10_000  # a grid of samples of the EMA model, and report.html anew
    # Where each logged row goes: jsonl (metrics.jsonl, which the report is made of), tensorboard, wandb, trackio
    training.writers = ("jsonl", "tensorboard")
    training.tracking_project = "ornstein"  # wandb, trackio: the project that the run is shown in
    training.loss_bins = 10  # noise levels, even in log-SNR, at which the loss is logged apart; 0 is none
    training.measure_peak = True  # time a large matrix product at the start (under a second), which MFU is relative to
    # The moving average of the parameters. warmup: of the decay ema_decay, less in the first steps (score_sde);
    # constant: of ema_decay from the first step on; half_life (EDM); power: weighed by a power of time (EDM2).
    # Several are tracked with commas between, each with its own numbers after colons instead of the keys below, as in
    # "power:0.05,power:0.1,half_life:500000:0.05"; each costs as much memory as the parameters (see sampling.ema)
    training.ema = "warmup"
    training.ema_decay = 0.9999  # warmup, constant: what is kept of the average at each step
    training.ema_half_life = 500_000  # half_life: in images, after which a step counts half
    training.ema_ramp = 0.05  # half_life: it is at most so many times the images seen; 0 is no such limit
    training.ema_std = 0.05  # power: the width of the average, in units of the training's length; at most 0.288
    training.ema_snapshot_every = 0  # steps; keep the power averages, for sampling.ema_std; 0 is never
    training.ema_snapshot_dtype = "float32"  # of those files: float32, float16 (half the space; EDM2)
    training.on_nonfinite = "stop"  # a step whose loss or gradient is not finite: stop, or skip (changes no weight)
    training.max_skips = 100  # skip: so many steps in the whole run, then it stops
    training.t_min = 1e-5  # smallest time of the loss
    training.seed = 0  # of the initial parameters, the order of the data, times, noise and dropout

    config.optim = optim = ConfigDict()
    optim.name = "adam"  # adam, adamw (decays matrices alone), muon (hidden matrices and kernels; adamw for the rest)
    optim.lr = 2e-4  # learning rate after the warm-up
    optim.warmup_steps = 5_000  # linear from 0
    optim.schedule = "constant"  # after the warm-up: constant, cosine (to 0 at num_steps), inverse_sqrt
    optim.decay_steps = 70_000  # inverse_sqrt: the step from which the rate falls; at four times as many it is half
    optim.beta1 = 0.9  # decay of the mean of gradients
    optim.beta2 = 0.999  # decay of the mean of squared gradients
    optim.eps = 1e-8  # added to the root of the mean square
    optim.momentum = 0.95  # muon: Nesterov's, of the matrices
    optim.weight_decay = 0.0  # decoupled, per unit of learning rate; with adam of all weights
    optim.grad_clip = 1.0  # global norm; 0 is no clipping
    optim.accumulate = 1  # parts of a batch whose gradients are made one after the other, to save memory; same result

    # How `sample`, the grids during training and `evaluate` draw.
    config.sampling = sampling = ConfigDict()
    sampling.ema = (
        ""  # the average of the parameters: "" is the first of training.ema, or another's text, as "power:0.1"
    )
    sampling.ema_std = 0.0  # or the power average of this width, made of those of training.ema_snapshot_every; 0 is not
    # Evaluations of the Denoiser for each sample by the recommended method and times (docs/methods.md), which need no fit;
    # 0 disables: method, steps and times count. Setting one of these three on the command line disables it too
    sampling.evaluations = 0
    # heun, ddim, dpm_solver, dpm_solver_singlestep, unipc, deis, probability_flow, ancestral, euler_maruyama,
    # reverse_diffusion, langevin, predictor_corrector, adaptive, sscs (critically_damped)
    sampling.sampler = "heun"
    sampling.steps = 18  # the denoising step included
    sampling.times = "karras"  # karras, uniform, log_snr, quadratic
    sampling.rho = 7.0  # karras: 1 is uniform in sigma / alpha, infinity in its logarithm
    sampling.t_min = 1e-3  # where the denoising step is made
    sampling.batch_size = 256  # samples drawn at once on each device; does not change them
    # class-conditional models: the class, of a trained run also by its name; -1 draws sample i of class i mod
    # num_classes, and in `evaluate` classes in the reference's proportions
    sampling.label = -1
    # Guidance of what is drawn: D_weak + scale (D - D_weak)
    sampling.guidance = guidance = ConfigDict()
    guidance.name = "linear"  # linear, or module:name of your own, called with D, D_weak and the scale
    guidance.scale = 1.0  # 1 disables guidance, 0 draws from the weak model; published scales lie between 1.2 and 8
    guidance.low = 0.0  # guided where low < sigma / alpha <= high, with the model itself outside
    guidance.high = float("inf")  # upper end of the guided noise levels; with low, (0.2, 2] or so (Kynkaanniemi et al.)
    guidance.rescale = 0.0  # share by which the contrast of guided samples is brought back (0.7); 0 disables
    guidance.threshold = 0.0  # quantile of dynamic thresholding (0.95 to 0.999), 1 for static clipping; 0 disables
    # The weak model (autoguidance) or a classifier: another run, RUN or RUN@STEP; "" is the model itself without its class
    guidance.guide = ""
    sampling.eta = 0.0  # ddim: 0 is deterministic, 1 ancestral
    sampling.order = 2  # dpm_solver, dpm_solver_singlestep, unipc, deis: 1 to 3; sscs: 1 or 2
    sampling.variable = "log_snr"  # of the polynomial of dpm_solver, unipc, deis: log_snr, angle, time
    sampling.corrected = False  # deis: do each step again with what is found at its end, as unipc does
    sampling.stochastic = 0.0  # dpm_solver, unipc: 0 is the probability flow, 1 the reverse-time SDE
    sampling.lower_order_final = False  # dpm_solver, unipc, deis: lower the order in the last steps
    sampling.tolerance = 1e-3  # adaptive: of a step's error, relative and absolute; takes sampling.steps = 2
    sampling.max_steps = 4096  # adaptive: steps allowed for each example, rejected ones included
    sampling.churn = 0.0  # heun: S_churn
    sampling.churn_min = 0.05  # heun: S_min, of sigma / alpha
    sampling.churn_max = 50.0  # heun: S_max
    sampling.churn_noise = 1.003  # heun: S_noise
    sampling.predictor = "reverse_diffusion"  # predictor_corrector: any one-step method
    sampling.snr = 0.16  # langevin and predictor_corrector: sets the length of Langevin steps
    sampling.corrector_steps = 1  # langevin and predictor_corrector: Langevin steps at each time
    sampling.langevin_norm = "process"  # process, sample, batch: see sde_lib/sampling/correctors.py

    # What `evaluate` measures on the EMA model.
    config.evaluation = evaluation = ConfigDict()
    evaluation.num_samples = 5_000  # drawn, and at most so many held-out images to compare with
    # In whose features images are compared: perceptron (fitted to the training images), efficientnet-lite0, inception,
    # inception-tf1, inception-clean (their Frechet distance is the FID), dinov2-vits14, dinov2-vitb14, dinov2-vitl14
    evaluation.features = "perceptron"
    evaluation.metrics = (
        ""  # further metrics, with commas between: gaussian_kernel_distance, or my_metrics:VENDI of your own
    )
    evaluation.feature_weights = ""  # the publisher's file of them; efficientnet-lite0's come with an installed package
    evaluation.reference = "held_out"  # what samples are compared with: held_out, training (all; as is published)
    evaluation.statistics = ""  # file of the reference's statistics, which runs can share; empty computes them
    evaluation.neighbours = 10_000  # samples, and real images, compared pair by pair; time grows with the square
    evaluation.training_images = 50_000  # searched for what samples are copies of; 0 does not search
    evaluation.noise_levels = 10  # levels of the held-out loss, even in log-SNR
    evaluation.t_min = 1e-3  # smallest time of the held-out loss
    evaluation.likelihood_images = 0  # held-out images whose bits per dimension are measured
    evaluation.likelihood_t_min = 1e-5  # time at which their density is taken
    evaluation.likelihood_probes = 1  # of the divergence's estimate (Hutchinson)
    evaluation.likelihood_tolerance = 1e-5  # of the ODE's steps, relative and absolute
    evaluation.seed = 1_000_000  # of the samples; other than what people pass to `sample`

    config.parallel = parallel = ConfigDict()
    # pmap: one program per device, gradients averaged; fsdp: each device keeps a share of parameters, optimizer and EMA
    parallel.strategy = "pmap"

    return config
