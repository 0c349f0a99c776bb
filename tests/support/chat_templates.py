"""Chat templates of the shapes that families have, written for the tests; TRL carries the real ones of others."""

from pathlib import Path

import trl

TRL = Path(trl.__file__).parent / "chat_templates"


def of_trl(name: str) -> str:
    return (TRL / f"{name}.jinja").read_text()


SOLAR = """{% for message in messages %}{% if message.role == 'system' %}### System:
{{ message.content }}

{% elif message.role == 'user' %}### User:
{{ message.content }}

{% else %}### Assistant:
{{ message.content }}

{% endif %}{% endfor %}{% if add_generation_prompt %}### Assistant:
{% endif %}"""
"""An answer ends with a blank line, and nothing writes the begin token."""

GLM4 = """[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>
{{ message.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
"""Nothing ends an answer."""

FALCON = """{% for message in messages %}{{ '\\n\\n' if not loop.first else '' }}{% if message.role == 'system' %}\
{{ message.content }}{% elif message.role == 'user' %}User: {{ message.content }}{% else %}\
Assistant: {{ message.content }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"""

AMBER = """{% for message in messages %}{% if message.role == 'user' %}### Human: {{ message.content }}
{% elif message.role == 'assistant' %}### Assistant: {{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}### Assistant:{% endif %}"""
"""A system message is passed over without a word."""

GEMMA2 = """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}<start_of_turn>\
{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

MISTRAL1 = """{{ bos_token }}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]{% elif message.role == 'assistant' %}\
{{ message.content + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}\
{% endif %}{% endfor %}"""

MISTRAL3 = """{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] \
{% if loop.last and messages[0].role == 'system' or loop.index0 == 1 %}{{ messages[0].content }}

{% endif %}{{ message.content }}[/INST]{% elif message.role == 'assistant' %} {{ message.content + eos_token }}\
{% endif %}{% endfor %}"""
"""The system text stands in front of the last question."""

IN_PARTS = """{% for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As models that see pictures have it: content is a list."""

CHATML = """{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

EXAONE = """{% for message in messages %}{% if loop.first and message.role != 'system' %}[|system|][|endofturn|]
{% endif %}[|{{ message.role }}|]{{ message.content }}{% if message.role == 'user' %}
{% else %}[|endofturn|]
{% endif %}{% endfor %}{% if add_generation_prompt %}[|assistant|]{% endif %}"""

EXAONE4 = """{% for message in messages %}[|{{ message.role }}|]
{% if message.role == 'assistant' %}<think>

</think>

{% endif %}{{ message.content }}[|endofturn|]
{% endfor %}{% if add_generation_prompt %}[|assistant|]
{% if enable_thinking %}<think>
{% else %}<think>

</think>

{% endif %}{% endif %}"""

HYPERCLOVA = """<|im_start|>tool_list
<|im_end|>
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PHI4 = """{% for message in messages %}<|im_start|>{{ message.role }}<|im_sep|>{{ message.content }}<|im_end|>\
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"""

AX = """{% for message in messages %}<|im_start|><|{{ message.role }}|>{{ message.content }}<|im_end|>{% endfor %}\
{% if add_generation_prompt %}<|im_start|><|assistant|>{% endif %}"""
