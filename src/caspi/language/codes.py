"""Names of languages in prompts, and their ISO codes. The only place where they are defined."""

from __future__ import annotations

import difflib
import functools

NO_SPEECH = "None"  # the language that the model outputs if there is no speech

# ISO 639-1, with the names of the released model if it has its own (Persian, Greek, Filipino ...).
_ISO_639_1 = """
aa Afar|ab Abkhazian|af Afrikaans|ak Akan|am Amharic|an Aragonese|ar Arabic|as Assamese|av Avaric|ay Aymara|
az Azerbaijani|ba Bashkir|be Belarusian|bg Bulgarian|bm Bambara|bn Bengali|bo Tibetan|br Breton|bs Bosnian|
ca Catalan|ce Chechen|co Corsican|cs Czech|cv Chuvash|cy Welsh|da Danish|de German|dv Divehi|dz Dzongkha|ee Ewe|
el Greek|en English|eo Esperanto|es Spanish|et Estonian|eu Basque|fa Persian|ff Fulah|fi Finnish|fj Fijian|
fo Faroese|fr French|fy Frisian|ga Irish|gd Gaelic|gl Galician|gn Guarani|gu Gujarati|ha Hausa|he Hebrew|
hi Hindi|hr Croatian|ht Haitian|hu Hungarian|hy Armenian|id Indonesian|ig Igbo|is Icelandic|it Italian|
ja Japanese|jv Javanese|ka Georgian|kg Kongo|kk Kazakh|km Khmer|kn Kannada|ko Korean|ks Kashmiri|ku Kurdish|
ky Kyrgyz|la Latin|lb Luxembourgish|lg Ganda|li Limburgish|ln Lingala|lo Lao|lt Lithuanian|lv Latvian|
mg Malagasy|mi Maori|mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|ms Malay|mt Maltese|my Burmese|
ne Nepali|nl Dutch|no Norwegian|ny Chichewa|oc Occitan|om Oromo|or Odia|os Ossetian|pa Punjabi|pl Polish|
ps Pashto|pt Portuguese|qu Quechua|ro Romanian|ru Russian|rw Kinyarwanda|sa Sanskrit|sc Sardinian|sd Sindhi|
si Sinhala|sk Slovak|sl Slovenian|sm Samoan|sn Shona|so Somali|sq Albanian|sr Serbian|st Sotho|su Sundanese|
sv Swedish|sw Swahili|ta Tamil|te Telugu|tg Tajik|th Thai|ti Tigrinya|tk Turkmen|tl Tagalog|tn Tswana|to Tonga|
tr Turkish|ts Tsonga|tt Tatar|ug Uyghur|uk Ukrainian|ur Urdu|uz Uzbek|vi Vietnamese|wo Wolof|xh Xhosa|
yi Yiddish|yo Yoruba|zh Chinese|zu Zulu|fil Filipino|yue Cantonese|arc Aramaic|lad Ladino
"""
CODES: dict[str, str] = {
    name: code for code, name in (entry.split() for entry in _ISO_639_1.replace("\n", "").split("|"))
}
# Other codes in use: withdrawn ones, and ISO 639-2 and 639-3 codes of languages with speech data sets.
_OTHER_CODES = dict(
    pair.split("=")
    for pair in (
        "heb=he iw=he yid=yi ji=yi eng=en ara=ar arb=ar deu=de ger=de fra=fr fre=fr spa=es por=pt ind=id in=id ita=it "
        "kor=ko rus=ru tha=th vie=vi jpn=ja tur=tr hin=hi msa=ms may=ms zsm=ms nld=nl dut=nl swe=sv dan=da fin=fi "
        "pol=pl ces=cs cze=cs fas=fa per=fa pes=fa ell=el gre=el ron=ro rum=ro hun=hu mkd=mk mac=mk "
        "zho=zh chi=zh cmn=zh ukr=uk amh=am nb=no nn=no nob=no nno=no"
    ).split()
)
_NAME_OF = {code: name for name, code in CODES.items()}
_NAMES = {name.lower(): name for name in CODES} | {"mandarin": "Chinese", "farsi": "Persian"}


@functools.cache
def named(written: str) -> str:
    """The name of a language in prompts: `he`, `he-IL`, `heb`, `HEBREW` and `Hebrew` give the same.

    Raises ValueError if the text is neither the English name of a language nor its code.
    """
    lowered = written.strip().lower()
    code = lowered.replace("_", "-").partition("-")[0]
    name = _NAMES.get(lowered) or _NAME_OF.get(_OTHER_CODES.get(code, code))
    if name is None:
        closest = difflib.get_close_matches(lowered, _NAMES, n=1)
        suggestion = f"; did you mean {_NAMES[closest[0]]}?" if closest else ""
        raise ValueError(
            f"language {written!r} is not known: give its English name (Hebrew) or ISO code (he){suggestion}"
        )
    return name
