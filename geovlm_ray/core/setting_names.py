"""Names of settings that there are not: former ones, those of other libraries, and those that are refused."""

from __future__ import annotations

RENAMED = {
    "evaluation.scenes": "evaluation.num_examples",
    "learner.decay": "learner.lr_decay",
    "learner.tis_cap": "learner.importance_high",
    "run.wandb": "run.trackers",
}
"""Renamed keys: old name to current name."""

REFUSED = dict.fromkeys(
    ("rollout.top_p", "rollout.top_k", "rollout.min_p"),
    "completions are sampled from the whole distribution, because the learner's log-probs, and with them every "
    "probability ratio, would otherwise be those of another policy; lower rollout.temperature instead, which the "
    "learner applies too",
)
"""Keys that users of other libraries may expect, and why there is no such setting."""

SYNONYMS = {
    **dict.fromkeys(("learning_rate", "actor_lr"), "learner.lr"),
    **dict.fromkeys(("beta", "kl_coef", "kl_loss_coef", "init_kl_coef"), "learner.kl_beta"),
    **dict.fromkeys(("epsilon", "cliprange", "clip_ratio", "clip_ratio_low"), "learner.clip_low"),
    **dict.fromkeys(("epsilon_high", "clip_ratio_high"), "learner.clip_high"),
    **dict.fromkeys(("n", "num_generations", "n_samples_per_prompt", "rollouts_per_example"), "rollout.group_size"),
    **dict.fromkeys(("max_completion_length", "max_response_length", "max_new_tokens"), "rollout.max_tokens"),
    **dict.fromkeys(("batch_size", "train_batch_size", "rollout_batch_size"), "rollout.prompts_per_step"),
    **dict.fromkeys(("max_steps", "total_training_steps"), "run.steps"),
    **dict.fromkeys(("model_name_or_path", "pretrain"), "model.path"),
    **dict.fromkeys(("tensor_parallel_size", "tensor_model_parallel_size"), "rollout.tensor_parallel"),
    **dict.fromkeys(("report_to", "logger", "wandb"), "run.trackers"),
    **dict.fromkeys(("reward_funcs", "reward_func", "custom_reward_function"), "reward.function"),
}
"""Names of settings in TRL, verl, EasyR1, OpenRLHF and prime-rl, and the key here."""
