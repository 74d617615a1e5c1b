"""Emergency signs in questions: found where they are stated, not where they are denied or discussed."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkun_tui import i18n
from drkun_tui.consult import safety
from drkun_tui.consult.safety import advice, red_flags

STATED = [
    ("chest_pain", "我爸突然胸口剧痛，出了一身冷汗，怎么办"),
    ("chest_pain", "胸痛放射到左肩和后背半小时了"),
    ("chest_pain", "胸口痛，左胳膊也麻，大汗"),
    ("chest_pain", "胸口像压了一块石头，胸痛得受不了"),
    ("chest_pain", "胸 痛 ，喘 不 过 气"),
    ("chest_pain", "胸悶、胸口痛，冒冷汗，還喘不過氣"),
    ("chest_pain", "心前区压榨性疼痛20分钟"),
    ("chest_pain", "I have crushing chest pain and I'm sweating"),
    ("chest_pain", "My chest hurts and the pain is going down my left arm"),
    ("chest_pain", "severe chest pain since this morning"),
    ("chest_pain", "My dad has chest pressure and can’t catch his breath"),
    ("chest_pain", "我爸是不是心梗了，快救命"),
    ("chest_pain", "I think I'm having a heart attack"),
    ("chest_pain", "一名55岁男性持续性胸痛、气促"),
    ("stroke", "I think she is having a stroke"),
    ("stroke", "今早起来口角歪斜，右边脸动不了"),
    ("stroke", "奶奶早上起来嘴歪了，右手没有力气，说话不清"),
    ("stroke", "没有力气口角歪斜，说话含糊"),
    ("stroke", "没有力气，口角歪斜，右手抬不起来"),
    ("stroke", "爷爷突然半边身子动不了"),
    ("stroke", "媽媽突然說不出話，嘴角下垂"),
    ("stroke", "我爸刚才突然口齿不清，左腿无力"),
    ("stroke", "My mother's face is drooping and her speech is slurred"),
    ("stroke", "He suddenly can't lift his right arm"),
    ("stroke", "sudden weakness on one side of the body"),
    ("breathing", "孩子不能呼吸了"),
    ("breathing", "呼吸困难，嘴唇发紫"),
    ("breathing", "我喘不上气来"),
    ("breathing", "呼吸困難怎麼辦"),
    ("breathing", "I can't breathe"),
    ("breathing", "my son is struggling to breathe and his lips are blue"),
    ("internal_bleeding", "今天吐血了，量不少"),
    ("internal_bleeding", "大便发黑像柏油，头晕"),
    ("internal_bleeding", "咳嗽咳出一大口血"),
    ("internal_bleeding", "I'm vomiting blood"),
    ("internal_bleeding", "my stools are black and tarry"),
    ("heavy_bleeding", "手被割伤，血止不住"),
    ("heavy_bleeding", "流血不止怎么处理，他的腿还在喷血"),
    ("heavy_bleeding", "the bleeding won't stop"),
    ("heavy_bleeding", "he cut his leg and is bleeding heavily"),
    ("unconscious", "我妈突然晕倒了，叫不醒"),
    ("unconscious", "老公昏迷了"),
    ("unconscious", "他没有呼吸了"),
    ("unconscious", "父亲没有意识了，人没有反应"),
    ("unconscious", "my husband passed out and won't wake up"),
    ("unconscious", "She is unconscious and not breathing"),
    ("seizure", "孩子全身抽搐，口吐白沫"),
    ("seizure", "宝宝发烧惊厥了"),
    ("seizure", "癫痫发作已经十分钟了，还在抽搐"),
    ("seizure", "My daughter is having a seizure"),
    ("anaphylaxis", "吃了花生以后嘴唇肿，喉咙发紧"),
    ("anaphylaxis", "打了青霉素后全身风团，呼吸困难"),
    ("anaphylaxis", "stung by a bee and my throat is swelling"),
    ("anaphylaxis", "allergic reaction, her tongue is swollen"),
    ("self_harm", "活着没意思，不想活了"),
    ("self_harm", "我想自杀"),
    ("self_harm", "有时候真的想死，觉得撑不下去"),
    ("self_harm", "女儿割腕了"),
    ("self_harm", "有自殺的念頭怎麼辦"),
    ("self_harm", "I want to kill myself"),
    ("self_harm", "I don't want to live any more"),
    ("self_harm", "my friend is suicidal, what is the best thing to do"),
    ("poisoning", "孩子误服了老鼠药"),
    ("poisoning", "他喝了硫酸怎么办"),
    ("poisoning", "她喝了农药，怎么办"),
    ("poisoning", "吃了一瓶安眠药"),
    ("poisoning", "疑似一氧化碳中毒，头晕恶心"),
    ("poisoning", "My toddler swallowed a button battery"),
    ("poisoning", "I took too many pills, I think it's an overdose"),
    ("poisoning", "I took 30 paracetamol"),
    ("unconscious", "一名老人出现意识障碍，应该采取哪些治疗"),
    ("infant_fever", "两个月的宝宝发烧38.5度"),
    ("infant_fever", "宝宝8个月，高烧40度不退"),
    ("infant_fever", "新生儿不吃奶，一直昏睡"),
    ("infant_fever", "my 6-week-old has a fever"),
    ("infant_fever", "baby has a temperature of 39.5 and is floppy"),
    ("severe_abdominal_pain", "肚子剧痛，腹部硬邦邦的"),
    ("severe_abdominal_pain", "突然剧烈腹痛伴呕吐"),
    ("severe_abdominal_pain", "severe stomach pain and I keep vomiting"),
    ("pregnancy", "怀孕30周，下面流血了"),
    ("pregnancy", "孕妇突然肚子剧痛，阴道出血"),
    ("pregnancy", "怀孕32周没有胎动"),
    ("pregnancy", "I'm 20 weeks pregnant and bleeding"),
    ("head_injury", "孩子从床上摔下来撞到头，一直呕吐"),
    ("head_injury", "摔倒后脑勺着地，之后记不清事情"),
    ("head_injury", "He hit his head and has been vomiting since"),
    ("sudden_headache", "突然剧烈头痛，从来没有这么痛过"),
    ("sudden_headache", "像雷击一样的头痛"),
    ("sudden_headache", "the worst headache of my life"),
    ("meningitis", "发烧、脖子僵硬、怕光"),
    ("meningitis", "高烧头痛，喷射性呕吐"),
    ("meningitis", "fever, stiff neck and a rash that doesn't fade"),
    ("vision_loss", "右眼突然看不见了"),
    ("vision_loss", "I suddenly lost vision in one eye"),
    ("testicular_torsion", "儿子睾丸突然剧痛"),
    ("testicular_torsion", "sudden testicular pain on the left"),
    ("diabetic", "糖尿病，呕吐腹痛，呼吸有烂苹果味"),
    ("diabetic", "diabetic, vomiting, breath smells fruity"),
    ("cauda_equina", "腰痛，今天小便失禁，会阴部发麻"),
    ("cauda_equina", "back pain and I've lost control of my bladder"),
    ("choking", "孩子吃果冻噎住了，脸发紫喘不上气"),
    ("choking", "my baby is choking"),
    ("grave_injury", "从三楼摔下来了"),
    ("grave_injury", "被毒蛇咬了"),
    ("grave_injury", "he was bitten by a snake"),
]

QUIET = [
    "",
    "最近总是头晕，应该怎么办？",
    "胃痛三天，吃什么药",
    "高血压可以吃党参吗",
    "没有胸痛，也没有呼吸困难，只是咳嗽",
    "无呼吸困难，无咯血，咳嗽一周",
    "否认胸痛、呼吸困难、大汗",
    "没有发热、咳嗽、胸痛和呼吸困难",
    "无剧烈腹痛、呕吐",
    "最近咳嗽，不伴呼吸困难",
    "不是剧烈头痛，只是隐隐的",
    "从来没有晕倒过",
    "我没有自杀的想法，只是睡不着",
    "我不想死，想好好治病",
    "什么是心肌梗死",
    "心肌梗死有哪些症状？是不是胸痛大汗",
    "脑出血的急救措施",
    "高血压会引起昏迷吗",
    "癫痫发作的时候口吐白沫，我有这个病三年了，吃什么药",
    "请描述昏迷的鉴别诊断方法",
    "怎么预防中风",
    "我担心会突然晕倒",
    "如果出现呼吸困难怎么办",
    "小时候晕倒过一次，现在想了解能不能跑步",
    "三年前曾经吐血，现在复查正常",
    "中风后遗症三年了，说话不清，右手没力气，怎么康复",
    "眼皮抽搐三天",
    "小腿抽筋怎么办",
    "压力大，胸闷，睡眠不好",
    "颈椎病，脖子僵硬，头痛",
    "过敏性鼻炎打喷嚏",
    "痔疮，大便有一点血",
    "鼻子出血一次，很快停了",
    "怀孕12周，能吃海鲜吗",
    "糖尿病血糖8，怎么饮食",
    "腰疼半年，腰椎间盘突出",
    "痛经，疼得想死的感觉每个月一次",
    "我想死你了",
    "孩子6岁，发烧38度",
    "3岁宝宝高烧39度，流鼻涕",
    "服用盐酸氨基葡萄糖片要注意什么，我膝盖疼",
    "碰一下手指像触电一样麻",
    "孕妇痔疮，肛门出血一点点",
    "宝宝8个月，流鼻涕，没有发烧",
    "血糖高，睡不好，怎么吃",
    "胸部有个硬块不痛",
    "手脚麻木很多年",
    "食物中毒后拉肚子怎么办",
    "嗓子肿痛，咽喉炎",
    "肚子有点疼，拉稀",
    "老年人高血压一般如何治疗",
    "无力，疲乏，没精神",
    "I have no chest pain and no shortness of breath, just a cough",
    "A headache without vomiting or confusion",
    "She denies chest pain, sweating or shortness of breath",
    "I don't have any suicidal thoughts",
    "What is a heart attack?",
    "What are the symptoms of a stroke?",
    "Can high blood pressure cause seizures?",
    "how to prevent fainting",
    "history of seizures as a child, now well",
    "What should I eat with type 2 diabetes?",
    "My back hurts after lifting",
    "My blood pressure is 140 over 90",
    "mild headache for two days",
    "I am 12 weeks pregnant, can I drink coffee?",
    "my knee hurts when I climb stairs",
    "stiff neck after sleeping badly",
    "My baby is 8 months old and has a runny nose",
    "food poisoning, diarrhoea since yesterday",
]


@pytest.mark.parametrize(("flag", "text"), STATED)
def test_a_sign_that_is_stated_is_found(flag: str, text: str) -> None:
    assert flag in red_flags(text)


@pytest.mark.parametrize("text", QUIET)
def test_no_sign_where_there_is_none(text: str) -> None:
    assert red_flags(text) == []


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("没有发烧，但是胸口剧痛，大汗", ["chest_pain"]),
        ("无明显诱因出现呼吸困难", ["breathing"]),
        ("有没有可能是中毒？我误服了消毒液", ["poisoning"]),
        ("呼吸困难一直没有缓解", ["breathing"]),
        ("胸痛已经没有了", []),
        ("动不动就喘不过气", ["breathing"]),
        ("No fever, but I can't breathe", ["breathing"]),
        ("I have not slept because I can't breathe", ["breathing"]),
        ("ＳＵＤＤＥＮ　ＷＯＲＳＴ　ＨＥＡＤＡＣＨＥ", ["sudden_headache"]),
        ("I\u200b can't\nbreathe", ["breathing"]),
    ],
)
def test_what_a_negation_reaches(text: str, flags: list[str]) -> None:
    assert red_flags(text) == flags


def test_every_flag_has_examples_and_a_name() -> None:
    raw = tomllib.loads(Path(safety.__file__).with_name("red_flags.toml").read_text("utf-8"))
    ids = [flag["id"] for flag in raw["flag"]]
    assert len(ids) == len(set(ids)) == 22
    assert {flag for flag, _ in STATED} == set(ids)
    for code in i18n.LANGUAGES:
        names = {key.removeprefix("safety.name_") for key in i18n.catalogue(code) if ".name_" in key}
        assert names >= set(ids)
    used = {term for flag in raw["flag"] for rule in flag["rules"] for term in rule}
    used |= {term for flag in raw["flag"] for term in flag.get("unless", []) + flag.get("yet", [])}
    assert used == set(raw["terms"]), "every term is used, and every one that is used is there"


def test_advice_is_one_line_that_says_whom_to_call() -> None:
    chinese = advice(["chest_pain", "breathing"], "zh")
    assert chinese == "可能是急症：胸痛、呼吸困难。请立即拨打 120 或去最近的急诊，不要等待模型的回答。"
    assert "chest pain, difficulty breathing" in advice(["chest_pain", "breathing"], "en")
    assert advice([], "zh") == ""
    for code in i18n.LANGUAGES:
        alone = advice(["self_harm"], code)
        assert "12356" in alone
        assert i18n.catalogue(code)["safety.name_self_harm"] not in alone
        both = advice(["self_harm", "poisoning"], code)
        assert "120" in both
        assert "12356" in both
        assert "\n" not in both
        assert "from_the_future" in advice(["from_the_future"], code)


@settings(deadline=None)
@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert isinstance(red_flags(text), list)


@pytest.mark.parametrize(
    "piece",
    [
        "胸痛",
        "没有痛、",
        "no chest pain, ",
        "突然",
        "a ",
        "无热、痛和",
        " ",
        "头痛和发热",
        "wor",
        "血",
        "no a or ",
        "怀孕",
        "口嘴脸",
        "不",
    ],
)
def test_a_huge_question_is_looked_at_up_to_a_limit(piece: str) -> None:
    red_flags("头晕")
    start = time.process_time()
    red_flags(piece * 1_000_000)
    # No benchmark: a pattern that backtracks without bound takes minutes here.
    assert time.process_time() - start < 10


def test_what_follows_the_limit_is_not_looked_at() -> None:
    assert red_flags("很" * safety.LONGEST + "我想自杀") == []
