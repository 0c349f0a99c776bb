"""A prompt of train, for what is asked of chat templates and tokenizers."""

from yoyak.core.records import Prompt

PROMPT = Prompt(
    fname="train_0",
    system="당신은 유능한 AI 어시스턴트입니다.",
    turns=("#Person1#: 내일 병원에 같이 갈래?", "#Person2#: 그래, 몇 시에?", "#Person1#: 오전 열 시!"),
    question="위 대화를 요약해주세요.",
    summary="#Person1#은 #Person2#에게 내일 오전 열 시에 병원에 같이 가자고 합니다.",
)
