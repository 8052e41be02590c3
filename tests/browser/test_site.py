"""Every page at both widths and in both languages; keyboard, languages, first page's weight, no script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, expect

from luban_app.house.records import NAME_LENGTH
from luban_app.house.samples import SAMPLES
from luban_app.house.service import InputError
from tests.browser.browser import TOUCH_PIXELS, Visit, indicators
from tests.browser.conftest import VM

FIRST_PAGE_BYTES = 100_000
MISCOUNTED = InputError("records", "records-count", least=2, most=6)


def begin(visit: Visit, name: str) -> None:
    """A form that is at its second step."""
    visit.go("/evaluate/home")
    visit.page.locator("#name").fill(name)
    visit.press("form.next-to", name=indicators().parts[0].names.get(visit.language))
    expect(visit.page).to_have_url(re.compile("/evaluate/outside$"))


def outline(element: Locator) -> float:
    """Width in CSS pixels of the line that shows the focus."""
    width: float = element.evaluate(
        "one => getComputedStyle(one).outlineStyle === 'none' ? 0 : parseFloat(getComputedStyle(one).outlineWidth)"
    )
    return width


def test_pages_for_reading(visit: Visit) -> None:
    for name in ("home", "glossary", "about", "api"):
        visit.go("/" if name == "home" else f"/{name}")
        expect(visit.page.locator("#vm")).to_have_text(VM)
        expect(visit.page.locator("html")).to_have_attribute("lang", visit.language)
        visit.check(name)
    visit.go("/no/such/page")
    expect(visit.page.get_by_role("heading", level=1)).to_have_text(visit.t("error.404.title"))
    visit.check("error-404")


def test_the_api_is_described(reader: Visit) -> None:
    page = reader.page
    reader.go("/")
    reader.press("footer.api")
    expect(page.get_by_role("heading", level=1)).to_have_text(reader.t("api.title"))
    expect(page.get_by_role("row")).to_have_count(1 + 10)
    page.get_by_role("row").filter(has_text=reader.t("api.put.record")).get_by_role("link").click()
    details = page.locator("details[open]")
    expect(details).to_have_count(1)
    expect(details).to_contain_text("PUT /api/v1/records/{record}")
    details.get_by_role("link", name="RecordIn").click()
    expect(page.locator("details#RecordIn[open]")).to_contain_text("name")


def test_ruler(visit: Visit) -> None:
    visit.go("/ruler")
    visit.page.get_by_label(visit.t("ruler.measure"), exact=True).fill("88")
    visit.press("ruler.read")
    # 88 - 2 * 42.9 = 2.2 cm: in the first eighth (5.3625 cm), its second quarter (1.340625 to 2.68125 cm).
    expect(visit.page.locator(".character")).to_have_text("財")
    expect(visit.page.locator(".verdict")).to_contain_text("寶庫")
    visit.check("ruler")
    visit.page.get_by_label(visit.t("ruler.measure"), exact=True).fill("a door")
    visit.press("ruler.read")
    expect(visit.page.locator("#cm")).to_have_attribute("aria-invalid", "true")
    expect(visit.page.get_by_role("alert")).to_be_focused()
    visit.check("ruler-error")


def test_form_shows_what_is_missing_and_keeps_what_was_given(visit: Visit) -> None:
    page, t = visit.page, visit.t
    visit.go("/evaluate")
    first = indicators().parts[0]
    visit.press("form.next-to", name=first.names.get(visit.language))
    page.get_by_role("alert").get_by_role("link").click()
    expect(page.locator("#name")).to_be_focused()
    visit.check("start-error")
    page.locator("#name").fill("河堤 3F")
    visit.press("form.next-to", name=first.names.get(visit.language))

    group = visit.fieldset(first.indicators[0].id)
    group.locator("summary").click()
    expect(group.get_by_text(first.indicators[0].definition.get(visit.language))).to_be_visible()
    chosen = group.get_by_role("radio").nth(1)
    chosen.check()
    expect(page.locator("[data-answered]")).to_have_text("1")
    visit.check("step-outside")

    for part in indicators().parts[1:]:
        visit.press("form.next-to", name=part.names.get(visit.language))
        expect(page.locator("legend").first).to_have_text(part.indicators[0].names.get(visit.language))
        visit.check(f"step-{part.id}")

    visit.press("form.later")
    page.get_by_role("link", name=t("home.resume", name="河堤 3F")).click()
    page.get_by_role("button", name=first.names.get(visit.language)).click()
    expect(visit.fieldset(first.indicators[0].id).get_by_role("radio").nth(1)).to_be_checked()


def test_a_wrong_answer_is_shown_where_it_is(visit: Visit) -> None:
    """Only an old page or a program sends one; whoever does is led to the question."""
    page, t = visit.page, visit.t
    begin(visit, "Here")
    expect(page).not_to_have_title(re.compile(f"^{t('errors.in-title')}"))
    for name in ("noise", "house-type"):
        radio = page.locator(f"fieldset[id='{name}']").get_by_role("radio").first
        radio.evaluate("radio => { radio.value = 'gone' }")
        radio.check()
    visit.press("form.next-to", name=indicators().parts[1].names.get(visit.language))
    expect(page).to_have_title(re.compile(f"^{t('errors.in-title')}"))
    expect(page.get_by_role("alert")).to_be_focused()
    visit.check("step-error")
    assert outline(visit.page.get_by_role("alert")) >= 2
    page.get_by_role("alert").get_by_role("link").nth(1).click()
    wrong = visit.fieldset("noise")
    expect(wrong).to_be_focused()
    assert outline(wrong) >= 2
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_have_accessible_description(t("problem.option"))
    assert outline(visit.fieldset("house-type")) == 0


def test_throwing_away_is_asked(visit: Visit) -> None:
    page, t = visit.page, visit.t
    begin(visit, "A draft")
    visit.go("/evaluate/discard")
    expect(page.get_by_role("main")).to_contain_text("A draft")
    visit.check("discard")
    visit.press("discard.no")
    expect(page).to_have_url(re.compile("/evaluate/outside$"))

    record = visit.keep("A record", {"noise": "busy"})
    visit.go(f"/records/{record}")
    visit.press("result.edit")
    expect(page.get_by_role("heading", level=1)).to_have_text(t("replace.title"))
    visit.check("replace")
    visit.press("replace.yes")
    expect(page.locator("#name")).to_have_value("A record")
    visit.go("/evaluate/discard")
    visit.press("discard.yes")
    expect(page.locator("#name")).to_have_value("")


@pytest.mark.parametrize("letter", ["W", "觀"])
def test_a_long_name_makes_no_page_wider(reader: Visit, letter: str) -> None:
    """One word of full length, on a phone."""
    page, t = reader.page, reader.t
    name = letter * NAME_LENGTH
    ids = [reader.keep(name, {"noise": answer}) for answer in ("busy", "quiet")]
    begin(reader, name)
    reader.check("step", keep=False)
    for part in indicators().parts[1:]:
        reader.press("form.next-to", name=part.names.get("en"))
        reader.check("step", keep=False)
    page.locator(".progress button").first.click()
    reader.check("start", keep=False)
    both = "&".join(f"id={record}" for record in ids)
    for address in (
        "/",
        "/evaluate/discard",
        "/records",
        f"/records?q=nothing&{both}",
        f"/records/{ids[0]}",
        f"/records/{ids[0]}/delete",
        f"/records/{ids[0]}/edit",
        f"/compare?{both}",
    ):
        reader.go(address)
        expect(page.get_by_text(name).first).to_be_attached()
        reader.check(address, keep=False)
    expect(page.get_by_role("columnheader")).to_have_count(3)
    page.set_viewport_size({"width": 1280, "height": 800})
    for address in ("/", "/records", f"/records/{ids[0]}", f"/compare?{both}", "/evaluate/outside"):
        reader.go(address)
        reader.check(address, keep=False)
    reader.go(f"/records/{ids[0]}/edit")
    reader.press("replace.yes")
    reader.go("/")
    expect(page.get_by_role("link", name=t("home.resume", name=name))).to_be_visible()


def test_the_spaces_around_chinese_stay(reader: Visit) -> None:
    page, t = reader.page, reader.t
    name = "=1+1 Flat Ü 公寓 3F"
    begin(reader, name)
    reader.go("/")
    shown = page.get_by_role("main").locator(".button.primary")
    assert shown.inner_text() == t("home.resume", name=name)
    box = shown.bounding_box()
    assert box is not None
    assert box["height"] >= TOUCH_PIXELS
    reader.check("home", keep=False)


def test_homes_without_answers_are_not_called_alike(visit: Visit) -> None:
    page, t = visit.page, visit.t
    first, second = visit.keep("One", {}), visit.keep("Two", {})
    visit.go(f"/compare?id={first}&id={second}")
    expect(page.locator("p.notice")).to_have_text(t("compare.nothing"))
    answered = [visit.keep(name, {"noise": "busy"}) for name in ("Three", "Four")]
    visit.go(f"/compare?id={answered[0]}&id={answered[1]}")
    expect(page.locator("p.notice")).to_have_text(t("compare.alike"))


def test_going_back_brings_the_answers_back(reader: Visit) -> None:
    """What the page of a refused form advises: back, and send it again."""
    page, t = reader.page, reader.t
    reader.go("/evaluate/home")
    page.locator("#name").fill("Refused")
    page.locator("#notes").fill("kept")
    page.context.clear_cookies()
    reader.press("form.next-to", name=indicators().parts[0].names.get("en"))
    expect(page.get_by_role("heading", level=1)).to_have_text(t("error.403.title"))
    page.go_back()
    expect(page.locator("#notes")).to_have_value("kept")
    page.locator("#name").fill("Taken")
    reader.press("form.next-to", name=indicators().parts[0].names.get("en"))
    expect(page).to_have_url(re.compile("/evaluate/outside$"))

    radio = reader.fieldset("noise").get_by_role("radio").nth(1)
    radio.check()
    page.on("dialog", lambda dialog: dialog.accept())
    reader.press("nav.about")
    expect(page.get_by_role("heading", level=1)).to_have_text(t("about.title"))
    page.go_back()
    expect(radio).to_be_checked()
    expect(page.locator("[data-answered]")).to_have_text("1")


def test_whoever_goes_back_changes_only_what_they_change(reader: Visit) -> None:
    """Back shows what was filled in then; another window has saved since, on the same step."""
    page = reader.page
    begin(reader, "Shared")
    noise, pylon = (reader.fieldset(name).get_by_role("radio") for name in ("noise", "pylon"))
    noise.nth(1).check()
    reader.press("form.next-to", name=indicators().parts[1].names.get("en"))
    expect(page).to_have_url(re.compile("/evaluate/building$"))
    with page.context.expect_page() as opening:
        page.evaluate("window.open('/evaluate/outside')")
    other = opening.value
    other.locator("#pylon").get_by_role("radio").nth(0).check()
    other.get_by_role("button", name=reader.t("form.later")).click()
    expect(other).to_have_url(re.compile("/$"))
    other.close()
    page.go_back()
    noise.nth(0).check()
    reader.press("form.next-to", name=indicators().parts[1].names.get("en"))
    reader.go("/evaluate/outside")
    expect(noise.nth(0)).to_be_checked()
    expect(pylon.nth(0)).to_be_checked()


def test_a_page_of_a_form_that_is_gone_says_that_nothing_was_saved(visit: Visit) -> None:
    page, t = visit.page, visit.t
    begin(visit, "Thrown away")
    radio = visit.fieldset("noise").get_by_role("radio").nth(1)
    radio.check()
    with page.context.expect_page() as opening:
        page.evaluate("window.open('/evaluate/discard')")
    other = opening.value
    other.get_by_role("button", name=t("discard.yes")).click()
    expect(other.locator("#name")).to_have_value("")
    other.close()
    visit.press("form.next-to", name=indicators().parts[1].names.get(visit.language))
    alert = page.get_by_role("alert")
    expect(alert).to_be_focused()
    expect(alert.get_by_role("heading")).to_have_text(t("conflict.title"))
    expect(alert).to_contain_text(t("problem.discarded"))
    expect(radio).to_be_checked()
    expect(page.locator(".progress, .eyebrow")).to_have_count(0)
    visit.check("step-conflict")


def test_one_home_cannot_be_compared(visit: Visit) -> None:
    visit.go(f"/compare?id={SAMPLES[0].id}")
    expect(visit.page).to_have_title(re.compile(f"^{visit.t('errors.in-title')}"))
    expect(visit.page.get_by_role("alert")).to_contain_text(MISCOUNTED.message(visit.language))
    expect(visit.page.get_by_role("checkbox", checked=True)).to_have_count(1)
    visit.check("records-error")


def test_the_bar_of_the_list_covers_nothing_that_has_the_focus(visit: Visit) -> None:
    page = visit.page
    for number in range(9):
        visit.keep(f"Home {number}", {"noise": "busy"})
    visit.go("/records")
    bar, boxes = page.locator(".sticky"), page.get_by_role("checkbox")
    for index in (4, 8, boxes.count() - 1):
        box = boxes.nth(index)
        # Where a person's own scrolling may have left it: within the window, but under the bar.
        box.evaluate("box => window.scrollTo(0, box.getBoundingClientRect().bottom + scrollY - innerHeight + 8)")
        box.focus()
        label = box.locator("xpath=..").bounding_box()
        above = bar.bounding_box()
        assert label is not None
        assert above is not None
        assert label["y"] >= 0
        assert label["y"] + label["height"] <= above["y"], index


def test_switching_the_language_keeps_the_place_and_the_answers(visit: Visit) -> None:
    page = visit.page
    visit.go("/evaluate/home")
    page.locator("#name").fill("Somewhere")
    page.locator("button.language").click()
    expect(page).to_have_url(re.compile(r"/evaluate/home\?lang="))
    expect(page.locator("#name")).to_have_value("Somewhere")
    other = "en" if visit.language == "zh-TW" else "zh-TW"
    expect(page.locator("html")).to_have_attribute("lang", other)
    visit.go("/ruler?cm=88&length=43.2")
    expect(page.locator("html")).to_have_attribute("lang", other)
    page.locator("a.language").click()
    expect(page.locator("html")).to_have_attribute("lang", visit.language)
    expect(page.locator("#cm")).to_have_value("88")


def test_one_step_by_keyboard_alone(reader: Visit) -> None:
    page = reader.page
    reader.go("/evaluate/home")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "name":
            break
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/evaluate/outside"))
    first = indicators().parts[0].indicators[0]
    page.locator(f"fieldset[id='{first.id}']").evaluate("element => element.focus()")
    page.keyboard.press("Tab")
    expect(reader.fieldset(first.id).locator("summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(reader.fieldset(first.id).locator("details")).to_have_attribute("open", "")
    page.keyboard.press("Tab")
    # The radio that is on has the focus; from "not known", the last, down goes round to the first.
    page.keyboard.press("ArrowDown")
    expect(reader.fieldset(first.id).get_by_role("radio").first).to_be_checked()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/evaluate/building"))
    expect(page.locator(".progress li").nth(1)).to_contain_text("1/21")


def test_edit_and_delete_ask_first(reader: Visit) -> None:
    page, t = reader.page, reader.t
    reader.evaluate("To be changed", "", {"noise": "busy"})
    reader.press("result.edit")
    page.locator("#name").fill("Changed")
    page.get_by_role("button", name="Inside").click()
    reader.press("form.finish")
    expect(page.get_by_role("heading", level=1)).to_have_text("Changed")
    reader.press("result.delete")
    reader.check("delete")
    reader.press("delete.no")
    reader.press("result.delete")
    page.get_by_role("main").get_by_role("button", name=t("delete.yes")).click()
    expect(page).to_have_url(re.compile("/records$"))
    expect(page.get_by_role("link", name="Changed")).to_have_count(0)


def test_first_page_is_light_and_asks_no_other_host(reader: Visit) -> None:
    """Bytes as they come over the wire, heads included."""
    session = reader.page.context.new_cdp_session(reader.page)
    session.send("Network.enable")
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    reader.page.goto("/", wait_until="networkidle")
    assert len(received) >= 3, "page, style, script"
    assert 0 < sum(received) < FIRST_PAGE_BYTES
    assert reader.faults == []


def test_dark_and_print(reader: Visit) -> None:
    page = reader.page
    page.emulate_media(color_scheme="dark")
    begin(reader, "By night")
    one, both = f"id={SAMPLES[0].id}", "&".join(f"id={sample.id}" for sample in SAMPLES)
    for address in (
        "/",
        "/records",
        f"/records/{SAMPLES[1].id}",
        f"/compare?{both}",
        f"/compare?{one}",
        "/ruler?cm=50",
        "/evaluate/home",
        "/evaluate/outside",
        "/evaluate/discard",
        "/glossary",
        "/api",
    ):
        reader.go(address)
        assert reader.violations() == [], address
    page.emulate_media(media="print", color_scheme="light")
    reader.go(f"/records/{SAMPLES[1].id}")
    expect(page.locator("nav.main")).to_be_hidden()
    expect(page.locator(".answers").first).to_be_visible()


def test_everything_works_without_script(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server, java_script_enabled=False, locale="en")
    try:
        visit = Visit(context.new_page(), server, "en", 1280)
        visit.evaluate("No script", "", {"noise": "busy", "piercing-hall": "none"})
        # Noise: 50 + 10 * -2 = 30; piercing hall: 50 + 10 * 4 = 90; together 50 + 10 * (-6 + 20) / 8 = 67.5.
        assert [visit.score(part) for part in ("outside", "inside", "total")] == ["30.0", "90.0", "67.5"]
        visit.press("result.compare")
        visit.page.get_by_role("checkbox").nth(1).check()
        visit.press("records.compare")
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Comparison")
    finally:
        context.close()
