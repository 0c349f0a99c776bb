"""The tokens of `konlpy.tag.Mecab` for the texts in a JSON file, as JSON; for a test and a benchmark.

konlpy looks for its engine under the name `MeCab` and for the dictionary in a system folder. Both come from packages
here: `mecab-ko` (in `.cache/mecab-ko`: its own dictionary package must not be installed, it is another one) and
`python-mecab-ko-dic`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mecab_ko_dic


def konlpy_mecab() -> Any:
    """A `konlpy.tag.Mecab` with this project's dictionary."""
    dictionary = str(mecab_ko_dic.dictionary_path)
    # The engine asks its dictionary package for this name when it is imported.
    mecab_ko_dic.DICDIR = dictionary
    import mecab_ko

    sys.modules["MeCab"] = mecab_ko
    from konlpy.tag import Mecab

    return Mecab(dicpath=f"{dictionary} -r /dev/null")


if __name__ == "__main__":
    print(json.dumps([konlpy_mecab().morphs(text) for text in json.loads(Path(sys.argv[1]).read_text())]))
