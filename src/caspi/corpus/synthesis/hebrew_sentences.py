"""Sentences for the demo: Hebrew with niqqud, built from templates and word lists written for this project.

Written with niqqud because espeak-ng reads unpointed Hebrew almost without vowels. Numbers are words.
"""

from __future__ import annotations

import random
import unicodedata

from caspi.language.hebrew import espeak_order

_PEOPLE = {
    "m": """הַיֶּלֶד הָאִישׁ הַמּוֹרֶה הָרוֹפֵא הַנַּהָג הַטַּבָּח הַחַיָּל הַזַּמָּר הַשּׁוֹטֵר הַסַּפָּר הַדּוֹד הַסַּבָּא הַשָּׁכֵן
    הַתַּלְמִיד הַצַּיָּר הַגַּנָּן הָאוֹפֶה הַדַּיָּג הַמֶּלֶךְ דָּוִד יוֹסֵף מֹשֶׁה אוּרִי נִיר גִּיל שִׁמְעוֹן בִּנְיָמִין""",
    "f": """הַיַּלְדָּה הָאִשָּׁה הַמּוֹרָה הָרוֹפְאָה הַנַּהֶגֶת הַטַּבָּחִית הַחַיֶּלֶת הַזַּמֶּרֶת הַשּׁוֹטֶרֶת הַסַּפָּרִית הַדּוֹדָה הַסָּבְתָא
    הַשְּׁכֵנָה הַתַּלְמִידָה הַצַּיֶּרֶת הַגַּנֶּנֶת הָאוֹפָה הַמַּלְכָּה רוּת מִרְיָם שָׂרָה נוֹעָה דִּינָה תָּמָר לֵאָה רִבְקָה""",
}
_VERBS = {
    "m": """קָנָה מָכַר רָאָה לָקַח שָׁכַח מָצָא הֵבִיא פָּתַח שָׁבַר צָבַע נִקָּה צִיֵּר הֶחְבִּיא בָּדַק תִּקֵּן חִפֵּשׂ בָּחַר אִבֵּד
    שָׁמַר זָרַק""",
    "f": """קָנְתָה מָכְרָה רָאֲתָה לָקְחָה שָׁכְחָה מָצְאָה הֵבִיאָה פָּתְחָה שָׁבְרָה צָבְעָה נִקְּתָה צִיְּרָה הֶחְבִּיאָה בָּדְקָה תִּקְּנָה
    חִפְּשָׂה בָּחֲרָה אִבְּדָה שָׁמְרָה זָרְקָה""",
}
_MOTION = {
    "m": "הָלַךְ רָץ נָסַע חִכָּה יָשַׁב עָמַד שָׁר רָקַד צָחַק בָּכָה יָשַׁן עָבַד שִׂחֵק לָמַד",
    "f": "הָלְכָה רָצָה נָסְעָה חִכְּתָה יָשְׁבָה עָמְדָה שָׁרָה רָקְדָה צָחֲקָה בָּכְתָה יָשְׁנָה עָבְדָה שִׂחֲקָה לָמְדָה",
}
_THINGS = {
    "m": """הַסֵּפֶר הַכַּדּוּר הַתַּפּוּחַ הָעִתּוֹן הַכּוֹבַע הַמַּפְתֵּחַ הַמִּכְתָּב הַשּׁוּלְחָן הַכִּסֵּא הַחַלּוֹן הַבַּקְבּוּק הַשָּׁעוֹן הָעִפָּרוֹן
    הַסִּיר הַסַּכִּין הַתִּיק הַמְּעִיל הַתֹּף""",
    "f": """הַדֶּלֶת הַתְּמוּנָה הָעוּגָה הַמִּטְרִייָה הַשִּׂמְלָה הַחוּלְצָה הַמְּכוֹנִית הַטַּבַּעַת הַגִּיטָרָה הַמַּחְבֶּרֶת הַבּוּבָּה הַגְּבִינָה
    הַקּוּפְסָה הַמַּצְלֵמָה הַמַּפָּה הַכָּרִית""",
}
_COLOURS = {
    "m": "הַגָּדוֹל הַקָּטָן הֶחָדָשׁ הַיָּשָׁן הַיָּפֶה הָאָדוֹם הַכָּחוֹל הַיָּרוֹק הַצָּהוֹב הַלָּבָן הַשָּׁחוֹר",
    "f": "הַגְּדוֹלָה הַקְּטַנָּה הַחֲדָשָׁה הַיְשָׁנָה הַיָּפָה הָאֲדוּמָה הַכְּחוּלָה הַיְרוּקָה הַצְּהוּבָה הַלְּבָנָה הַשְּׁחוֹרָה",
}
_COUNTED = "סְפָרִים תַּפּוּחִים כַּדּוּרִים מִכְתָּבִים פְּרָחִים כְּלָבִים חֲתוּלִים דָּגִים עִתּוֹנִים בַּקְבּוּקִים כּוֹבָעִים תְּמָרִים"
_NUMBERS = "שְׁלוֹשָׁה אַרְבָּעָה חֲמִשָּׁה שִׁשָּׁה שִׁבְעָה שְׁמוֹנָה תִּשְׁעָה עֲשָׂרָה"
_PLACES = """בַּבַּיִת|בַּשּׁוּק|בַּגִּנָּה|בָּרְחוֹב|בַּחֲנוּת|בַּמִּטְבָּח|בַּיַּעַר|לְיַד הַיָּם|עַל הַגַּג|עַל הַגֶּשֶׁר|בַּתַּחֲנָה|בַּמִּשְׂרָד
|בַּכְּפָר|בָּעִיר|מוּל הַבַּנְק|לִפְנֵי הַכְּנִיסָה|מִתַּחַת לַגֶּשֶׁר|בַּסִּפְרִייָה|בַּמִּסְעָדָה|מֵאֲחוֹרֵי הַקִּיר|בֵּין הָעֵצִים|לְיַד הַנָּהָר"""
_TIMES = """אֶתְמוֹל|הַיּוֹם|בַּבּוֹקֶר|בָּעֶרֶב|בַּצָּהֳרַיִם|בַּלַּיְלָה|בְּיוֹם רִאשׁוֹן|בְּיוֹם שֵׁנִי|בְּיוֹם שְׁלִישִׁי|בְּיוֹם רְבִיעִי|בְּיוֹם חֲמִישִׁי
|בְּיוֹם שִׁשִּׁי|בְּשַׁבָּת|לִפְנֵי שָׁבוּעַ|לִפְנֵי שְׁנָתַיִם|אַחֲרֵי הָעֲבוֹדָה|אַחֲרֵי הַגֶּשֶׁם|לִפְנֵי הָאֲרוּחָה"""


def _clean(text: str) -> str:
    return espeak_order(unicodedata.normalize("NFC", text.strip()))


def _words(block: str) -> list[str]:
    return [_clean(word) for word in block.split()]


def _phrases(block: str) -> list[str]:
    return [_clean(phrase) for phrase in block.split("|")]


_LISTS = {
    (name, gender): _words(block)
    for name, genders in {
        "person": _PEOPLE, "verb": _VERBS, "motion": _MOTION, "thing": _THINGS, "colour": _COLOURS
    }.items()
    for gender, block in genders.items()
}  # fmt: skip
_COUNTED_WORDS, _NUMBER_WORDS = _words(_COUNTED), _words(_NUMBERS)
_PLACE_PHRASES, _TIME_PHRASES = _phrases(_PLACES), _phrases(_TIMES)
_OBJECT_MARKER = _clean("אֶת")
VOCABULARY = frozenset(
    word for words in (*_LISTS.values(), _COUNTED_WORDS, _NUMBER_WORDS, [_OBJECT_MARKER]) for word in words
) | frozenset(word for phrase in (*_PLACE_PHRASES, *_TIME_PHRASES) for word in phrase.split())


def sentence(draw: random.Random) -> str:
    """One pointed sentence of 3 to 8 words, drawn with `draw`."""
    gender = draw.choice("mf")
    person = draw.choice(_LISTS["person", gender])
    place, time = draw.choice(_PLACE_PHRASES), draw.choice(_TIME_PHRASES)
    kind = draw.random()
    if kind < 0.25:
        parts = [person, draw.choice(_LISTS["motion", gender]), place]
    elif kind < 0.45:
        counted = f"{draw.choice(_NUMBER_WORDS)} {draw.choice(_COUNTED_WORDS)}"
        parts = [person, draw.choice(_LISTS["verb", gender]), counted, *draw.choice([[], [place]])]
    else:
        thing_gender = draw.choice("mf")
        thing = [_OBJECT_MARKER, draw.choice(_LISTS["thing", thing_gender])]
        if draw.random() < 0.5:
            thing.append(draw.choice(_LISTS["colour", thing_gender]))
        parts = [person, draw.choice(_LISTS["verb", gender]), *thing, *draw.choice([[], [place]])]
    when = draw.random()
    if when < 0.3:
        parts.insert(0, time)
    elif when < 0.6:
        parts.append(time)
    return " ".join(parts)
