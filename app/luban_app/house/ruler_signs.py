"""The eight characters of the Luban ruler and their 32 minor divisions, as printed on the rulers in common use."""

from __future__ import annotations

from dataclasses import dataclass

from luban_app.catalogue.model import Text


@dataclass(frozen=True)
class Division:
    """A quarter of a character's range; `gloss` is what its name says, in short."""

    name: str
    gloss: Text


@dataclass(frozen=True)
class Character:
    """An eighth of the ruler; `name` is what is printed on it, `english` a word for it."""

    name: str
    pinyin: str
    english: str
    auspicious: bool
    meaning: Text
    divisions: tuple[Division, ...]


def _division(name: str, zh_tw: str, en: str) -> Division:
    return Division(name, Text(zh_tw, en))


CHARACTERS = (
    Character(
        "財",
        "cai",
        "Wealth",
        True,
        Text("錢財與才能，相傳宜於大門。", "Money and talent; said to suit a front door."),
        (
            _division("財德", "財與德行兼有", "wealth with virtue"),
            _division("寶庫", "得藏珍貴之物", "a store of treasures"),
            _division("六合", "四方上下和合", "harmony all round"),
            _division("迎福", "迎來福氣", "blessings welcomed"),
        ),
    ),
    Character(
        "病",
        "bing",
        "Illness",
        False,
        Text("傷病與不順，相傳不宜用於大門。", "Ailments and setbacks; said not to suit a front door."),
        (
            _division("退財", "錢財減損", "wealth receding"),
            _division("公事", "官府訴訟之事", "dealings with the law"),
            _division("牢執", "拘束不自由", "being held or confined"),
            _division("孤寡", "孤單無伴", "loneliness"),
        ),
    ),
    Character(
        "離",
        "li",
        "Parting",
        False,
        Text("親友離散。", "Family and friends drifting apart."),
        (
            _division("長庫", "拘禁之意（古說）", "long confinement, as of old"),
            _division("劫財", "錢財耗損", "wealth drained"),
            _division("官鬼", "官非之擾", "trouble with officials"),
            _division("失脫", "物失人散", "things and people lost"),
        ),
    ),
    Character(
        "義",
        "yi",
        "Righteousness",
        True,
        Text("合於正義與善行。", "Doing right and doing good."),
        (
            _division("添丁", "家中添人口", "an addition to the family"),
            _division("益利", "利益增加", "growing profit"),
            _division("貴子", "子女有成", "children who do well"),
            _division("大吉", "非常吉祥", "great good fortune"),
        ),
    ),
    Character(
        "官",
        "guan",
        "Office",
        True,
        Text("功名與職位，相傳宜於書房。", "Rank and career; said to suit a study."),
        (
            _division("順科", "考試順利", "success in examinations"),
            _division("橫財", "意外之財", "an unexpected gain"),
            _division("進益", "收益增進", "rising income"),
            _division("富貴", "富足而受敬重", "riches and honour"),
        ),
    ),
    Character(
        "劫",
        "jie",
        "Robbery",
        False,
        Text("遭人奪取或逼迫。", "Being robbed or pressed."),
        (
            _division("死別", "永別", "a final farewell"),
            _division("退口", "家中人口減少", "a smaller household"),
            _division("離鄉", "離開家鄉", "leaving home"),
            _division("財失", "財物遺失", "possessions lost"),
        ),
    ),
    Character(
        "害",
        "hai",
        "Harm",
        False,
        Text("禍患與損傷。", "Misfortune and injury."),
        (
            _division("災至", "災禍來到", "disaster arriving"),
            _division("死絕", "斷絕無後", "the end of a line"),
            _division("病臨", "疾病來到", "illness arriving"),
            _division("口舌", "爭吵是非", "quarrels"),
        ),
    ),
    Character(
        "本",
        "ben",
        "Origin",
        True,
        Text(
            "事物的根本，相傳用於各門皆可；有些尺寫作「吉」。",
            "The root of things; said to suit any door. Some rulers have 吉 (luck) instead.",
        ),
        (
            _division("財至", "錢財來到", "wealth arriving"),
            _division("登科", "榜上有名", "passing the examinations"),
            _division("進寶", "珍寶入門", "treasure coming in"),
            _division("興旺", "家業興盛", "prosperity"),
        ),
    ),
)
"""In the order in which they stand on the ruler."""
