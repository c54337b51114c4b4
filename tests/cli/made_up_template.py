"""A chat template for models that never saw one."""

CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}:\n{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
