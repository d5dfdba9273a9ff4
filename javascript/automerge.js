// The Automerge tab's live part: asks the status route, puts server-made fragments into their
// places, and carries out what buttons say. It holds no truth: reload the page at any time.
(function () {
    "use strict";

    const ROOT = "./automerge/v1/";
    const VISIBLE_MS = 2000;
    const ELSEWHERE_MS = 10000;
    const HIDDEN_MS = 30000;
    const MAX_RETRY_MS = 30000;
    const STARTERS = "#automerge_generate, #automerge_reward_try, #automerge_lab_save, #automerge_lab_preview";
    const STORED_RUN = "automerge-selected-run";

    let token = "";
    let status = null;
    let failures = 0;
    let unanswered = 0;
    let timer = 0;
    let asking = false;
    let askAgain = false;
    let selected = "";
    let seenRunning = false;
    let seenQuestion = "";
    let seenDownloading = false;
    let seenMerge = "";

    const byId = (id) => document.getElementById(id);
    const root = () => byId("automerge_root");
    const all = (selector, inside) => Array.from((inside || root() || document).querySelectorAll(selector));

    function visible(element) {
        // what is folded has a size in some browsers all the same
        return element.getClientRects().length > 0 && !element.closest("details:not([open])");
    }

    // --- the form: one request after the other ------------------------------------------------

    // Hidden buttons send the form's requests. The next is pressed when the answer to the one before
    // is in the page, so what is drawn last is about what the fields hold, however long each takes.
    const GIVE_UP_MS = 60000;
    const MOUNT_MS = 250;
    const form = {turns: [], draws: [], sent: "", since: 0};

    window.automergeForm = {
        ask(id, again) {
            if (/_(keep|redraw)$/.test(id)) drawLater(id);
            else if (!form.turns.includes(id) && (again || form.sent !== id)) form.turns.push(id);
            setTimeout(nextTurn, 0);
        },
        done(id, draw) {
            if (form.sent === id) form.sent = "";
            if (draw) drawLater(draw);
            setTimeout(nextTurn, 0);
        },
    };

    // Once for each form of the page; keeping draws too.
    function drawLater(id) {
        const keep = id.replace(/redraw$/, "keep");
        if (form.draws.includes(keep)) return;
        form.draws = form.draws.filter((other) => other.replace(/redraw$/, "keep") !== keep);
        form.draws.push(id);
    }

    function nextTurn() {
        if (form.sent && Date.now() - form.since < GIVE_UP_MS) return;
        const id = form.turns[0] || form.draws[0];
        if (!id) return;
        const button = byId(id);
        if (!button) {
            // gradio makes the content of a tab when it is first opened
            setTimeout(nextTurn, MOUNT_MS);
            return;
        }
        if (form.turns.length) form.turns.shift();
        else form.draws.shift();
        Object.assign(form, {sent: id, since: Date.now()});
        button.click();
    }

    // An edit is kept by a request of its own, which may still be on its way.
    async function formKept() {
        const begun = Date.now();
        do {
            await new Promise((done) => setTimeout(done, MOUNT_MS));
        } while ((form.sent || form.turns.length || form.draws.length) && Date.now() - begun < GIVE_UP_MS);
    }

    // --- talking to the server ---------------------------------------------------------------

    async function request(path, options) {
        const sent = Object.assign({credentials: "same-origin"}, options);
        const response = await fetch(ROOT + path, sent).catch(() => {
            throw new Error("The server does not answer. Nothing was changed: try again in a moment.");
        });
        if (response.ok) return response;
        let sentence = "the server answered " + response.status + ".";
        let login = "";
        try {
            const told = await response.json();
            sentence = told.error || sentence;
            login = told.login || "";
        } catch (error) { /* no JSON: a proxy answered, and its number says enough */ }
        throw Object.assign(new Error(sentence), {answered: true, login: login});
    }

    async function post(path, body) {
        const options = {
            method: "POST",
            headers: {"Content-Type": "application/json"},
            body: JSON.stringify(body || {}),
        };
        return (await request(path, options)).json();
    }

    function schedule(delay) {
        clearTimeout(timer);
        timer = setTimeout(poll, delay);
    }

    // the user's setting in the WebUI; its `opts` are empty until it has loaded them
    function visibleMs() {
        const seconds = typeof opts === "object" && opts ? Number(opts.automerge_poll) : NaN;
        return seconds >= 1 ? seconds * 1000 : VISIBLE_MS;
    }

    function rhythm() {
        // A WebUI that is just starting fails to start if it is asked for anything too early
        // ("Cannot add middleware after an application has started"): after a second unanswered
        // question it is left alone for longer. A look at the page asks at once.
        if (unanswered > 1) return MAX_RETRY_MS;
        if (failures) return Math.min(MAX_RETRY_MS, VISIBLE_MS * 2 ** failures);
        if (document.hidden) return HIDDEN_MS;
        return root() && visible(root()) ? visibleMs() : Math.max(ELSEWHERE_MS, visibleMs());
    }

    function pollNow() {
        if (asking) askAgain = true;
        else schedule(0);
    }

    async function poll() {
        if (asking) return;
        asking = true;
        askAgain = false;
        try {
            const query = new URLSearchParams({since: token, run: selected});
            const answer = await (await request("status?" + query)).json();
            failures = unanswered = 0;
            contact("", "");
            if (!answer.unchanged) receive(answer);
            token = answer.token;
            await render();
        } catch (error) {
            failures += 1;
            unanswered = error.answered ? 0 : unanswered + 1;
            const lost = "Lost contact with the server, retrying. Every finished score is safe.";
            if (error.answered) contact(error.message, error.login);
            else if (failures > 1) contact(lost, "");
        } finally {
            asking = false;
            schedule(askAgain ? 0 : rhythm());
        }
    }

    // --- showing -----------------------------------------------------------------------------

    function own(className, role) {
        let element = root().querySelector(":scope > ." + className);
        if (!element) {
            element = document.createElement("div");
            element.className = className;
            if (role) element.setAttribute("role", role);
            root().prepend(element);
        }
        return element;
    }

    function contact(sentence, login) {
        if (!root()) return;
        const element = own("automerge-contact", "status");
        element.hidden = !sentence;
        if (element.dataset.told === sentence + login) return;
        element.dataset.told = sentence + login;
        element.textContent = sentence;
        if (!login) return;
        const link = document.createElement("a");
        Object.assign(link, {textContent: "Log in", target: "_blank", rel: "noopener"});
        link.setAttribute("href", login);
        element.append(" ", link);
    }

    function tell(sentence, bad) {
        const element = own("automerge-toast", bad ? "alert" : "status");
        element.setAttribute("role", bad ? "alert" : "status");
        element.classList.toggle("bad", Boolean(bad));
        element.textContent = sentence;
        element.hidden = !sentence;
        clearTimeout(tell.timer);
        if (sentence && !bad) tell.timer = setTimeout(() => tell(""), 6000);
    }

    function receive(answer) {
        const before = status;
        status = answer;
        ring(answer);
        ringForQuestion(answer);
        lookAfterDownload(answer);
        lookAfterMerge(answer);
        if (root() && (!before || before.announcement !== answer.announcement)) {
            own("automerge-announcement", "status").textContent = answer.announcement;
        }
    }

    // Brings everything that is in the page to what is known. Places come and go (gradio makes the
    // content of a tab when it is first opened), so this is done again and again, and must be cheap.
    async function render() {
        if (!status || !root()) return;
        for (const shell of all("[data-automerge]")) {
            const fragment = status.fragments[shell.dataset.automerge];
            if (fragment !== undefined) fillIfNew(shell, fragment);
            else furnish(shell);
        }
        for (const place of all("[data-automerge-fragment]")) {
            fillIfNew(place, status.fragments[place.dataset.automergeFragment]);
        }
        for (const place of all("[data-automerge-saving]")) showSaving(place);
        lockForm(status);
        await refresh();
    }

    // A shell of the page gets a place for each of its views.
    function furnish(shell) {
        const view = shell.dataset.automerge;
        if (shell.querySelector("[data-automerge-view]")) return;
        const parts = [];
        if (view === "live") {
            const progress = document.createElement("div");
            progress.dataset.automergeFragment = "progress";
            parts.push(progress);
        }
        const place = document.createElement("div");
        place.dataset.automergeView = view;
        parts.push(place);
        shell.replaceChildren(...parts);
    }

    function showSaving(place) {
        const saving = status.saving;
        const mine = saving.run === place.dataset.automergeSaving && saving.state !== "idle";
        const sentence = mine ? saving.sentence : "";
        if (place.textContent !== sentence) place.textContent = sentence;
        place.className = "automerge-saving " + (mine ? saving.state : "");
    }

    // While a run is in hand its settings are frozen, and so is the form.
    function lockForm(answer) {
        root().classList.toggle("automerge-busy", answer.busy);
        const form = byId("automerge_form");
        if (!form) return;
        let note = form.querySelector(":scope > .automerge-frozen");
        if (!note && answer.busy) {
            note = document.createElement("div");
            note.className = "automerge-frozen";
            note.append(
                Object.assign(document.createElement("p"), {
                    textContent: "A run is in progress: its settings are frozen.",
                }),
                Object.assign(document.createElement("button"), {
                    type: "button",
                    className: "automerge-button",
                    textContent: "Duplicate as draft",
                }),
            );
            note.lastChild.dataset.action = "duplicate";
            form.prepend(note);
        }
        if (note) {
            note.hidden = !answer.busy;
            note.lastChild.dataset.run = answer.in_hand;
            note.lastChild.hidden = !answer.run;
        }
        for (const child of form.children) {
            if (child !== note) child.inert = answer.busy;
        }
        form.classList.toggle("automerge-locked", answer.busy);
    }

    // What was downloaded changes the checks of the form.
    function lookAfterDownload(answer) {
        if (seenDownloading && !answer.downloading) lookAgain("automerge_look_again");
        seenDownloading = answer.downloading;
    }

    // A file that was merged is taken, and the lab may start again.
    function lookAfterMerge(answer) {
        if (answer.merging) {
            // also for a page that was opened meanwhile
            seenMerge = seenMerge || "at work";
            return;
        }
        if (seenMerge && seenMerge !== answer.views.lab) lookAgain("automerge_lab_look_again");
        seenMerge = answer.views.lab;
    }

    function lookAgain(id) {
        const again = byId(id);
        if (again) again.click();
    }

    // Once, when a run that this page saw running has ended by itself.
    function ring(answer) {
        if (answer.busy) {
            seenRunning = true;
            return;
        }
        if (!seenRunning) return;
        seenRunning = false;
        // what the run has shown of the pace is in the form's forecast, and its message is over
        for (const id of ["automerge_look_again", "automerge_lab_look_again"]) lookAgain(id);
        const run = answer.run;
        const state = run ? run.state : "";
        const ended = answer.failure || state === "finished" || state === "failed" ||
            (state === "paused" && run.reason);
        if (ended) call(answer.announcement);
    }

    // Each time a run begins to wait for an answer while nobody looks at this page.
    function ringForQuestion(answer) {
        const asked = answer.question ? answer.question.key : "";
        if (asked && !seenQuestion && !document.hasFocus()) call(answer.announcement);
        seenQuestion = asked;
    }

    function call(announcement) {
        const audio = document.querySelector("#audio_notification audio");
        if (audio) {
            const volume = typeof opts === "object" ? opts.notification_volume : 100;
            audio.volume = Number.isFinite(volume) ? volume / 100 : 1;
            audio.play().catch(() => { /* the browser wants a click first: no sound then */ });
        }
        const allowed = "Notification" in window && Notification.permission === "granted";
        if (allowed && !document.hasFocus()) {
            new Notification("Automerge", {body: announcement});
        }
    }

    // --- views: fetched when their version is new and somebody can see them ---------------------

    function versionOf(place) {
        const versions = status.views;
        const view = place.dataset.automergeView;
        return (place.dataset.run || "") + "|" + (versions[view] || versions.results);
    }

    function pathOf(place) {
        const view = place.dataset.automergeView;
        if (["runs", "rewards", "reward-try", "lab"].includes(view)) return "views/" + view;
        const run = place.dataset.run || (view === "results" ? status.selected : status.run && status.run.id);
        return run ? "runs/" + encodeURIComponent(run) + "/views/" + view : "views/" + view;
    }

    async function refresh() {
        for (const place of all("[data-automerge-view]")) {
            const version = versionOf(place);
            if (place.dataset.version === version || !visible(place)) continue;
            try {
                const fragment = await (await request(pathOf(place))).text();
                place.dataset.version = version;
                fill(place, fragment);
            } catch (error) {
                // what is shown is old, but better than nothing; the next poll tries again
                if (!place.childElementCount) place.textContent = error.message;
            }
        }
    }

    function fillIfNew(element, fragment) {
        if (fragment === undefined || element.automergeShown === fragment) return;
        element.automergeShown = fragment;
        fill(element, fragment);
    }

    // Puts a fragment of the server (its strings are escaped there) into an element. Whatever the
    // user did there stays: folds, scrolling, focus, what was typed, and views inside it.
    function fill(element, fragment) {
        const template = document.createElement("template");
        template.innerHTML = fragment;
        const fresh = template.content;
        const kept = remember(element);
        for (const place of fresh.querySelectorAll("[data-automerge-view]")) {
            const old = kept.views.find((v) => v.dataset.automergeView === place.dataset.automergeView &&
                v.dataset.run === place.dataset.run);
            if (old) place.replaceWith(old);
        }
        element.replaceChildren(fresh);
        restore(element, kept);
        localize(element);
        for (const place of all("[data-automerge-saving]", element)) showSaving(place);
        if (!byId("automerge_send_txt2img")) {
            for (const button of all("[data-action=send]", element)) button.remove();
        }
    }

    function nameOf(control) {
        if (control.id) return "#" + CSS.escape(control.id);
        const names = ["name", "data-filter", "data-action", "data-run", "data-evaluation", "data-copy",
            "data-payload", "data-reward", "data-kept", "href"];
        const parts = names.filter((name) => control.hasAttribute(name))
            .map((name) => "[" + name + "=\"" + CSS.escape(control.getAttribute(name)) + "\"]");
        return parts.length ? control.tagName.toLowerCase() + parts.join("") : "";
    }

    function remember(element) {
        const active = element.contains(document.activeElement) ? document.activeElement : null;
        return {
            views: all("[data-automerge-view]", element),
            open: new Set(all("details[open]", element).map((d) => d.dataset.key)),
            closed: new Set(all("details:not([open])", element).map((d) => d.dataset.key)),
            scrolled: all(".scroll, pre", element).map((s) => [s.scrollLeft, s.scrollTop]),
            values: all("input, select", element).map((c) => [nameOf(c), c.value, c.defaultValue]),
            focus: active ? nameOf(active) : "",
            caret: active && active.selectionStart !== undefined ? active.selectionStart : null,
        };
    }

    function restore(element, kept) {
        for (const details of all("details", element)) {
            if (kept.open.has(details.dataset.key)) details.open = true;
            else if (kept.closed.has(details.dataset.key)) details.open = false;
        }
        all(".scroll, pre", element).forEach((place, index) => {
            if (kept.scrolled[index]) [place.scrollLeft, place.scrollTop] = kept.scrolled[index];
        });
        for (const [name, value] of kept.values) {
            const control = name && element.querySelector(name);
            const possible = control && (control.tagName !== "SELECT" ||
                Array.from(control.options).some((option) => option.value === value));
            if (possible) control.value = value;
        }
        for (const control of all("[data-filter]", element)) filterRows(control);
        const focus = kept.focus && element.querySelector(kept.focus);
        if (focus) {
            focus.focus({preventScroll: true});
            if (kept.caret !== null && focus.setSelectionRange) focus.setSelectionRange(kept.caret, kept.caret);
        }
    }

    // Times are shown in the zone of whoever looks, not of the server.
    function localize(element) {
        const day = {year: "numeric", month: "2-digit", day: "2-digit"};
        const minute = {hour: "2-digit", minute: "2-digit"};
        for (const place of all("time[data-in]", element)) {
            const seconds = Number(place.dataset.in);
            const end = new Date(Date.now() + 1000 * seconds);
            const form = seconds < 86400 ? minute : Object.assign({}, day, minute);
            place.textContent = end.toLocaleString([], form);
        }
        for (const place of all("time[data-at]", element)) {
            const form = Object.assign({}, day, minute);
            place.textContent = new Date(1000 * Number(place.dataset.at)).toLocaleString([], form);
        }
    }

    // --- actions -----------------------------------------------------------------------------

    const actions = {
        pause: (button) => change(button, "pause"),
        stop: (button) => change(button, "stop"),
        finish: (button) => change(button, "finish"),
        async resume(button) {
            await change(button, "resume");
            openTab("Search");
        },
        delete: (button) => change(button, "delete"),
        async rename(button) {
            const name = window.prompt("New name of the run:", button.dataset.name || "");
            if (name !== null) await change(button, "rename", {name: name});
        },
        open(button) {
            select(button.dataset.run);
            openTab("Results");
        },
        async duplicate(button) {
            const start = button.dataset.evaluation ? Number(button.dataset.evaluation) : null;
            await change(button, "duplicate", {start: start});
            const load = byId("automerge_load_draft");
            if (load) load.click();
            openTab("Search");
            tell("The form holds the settings of " + button.dataset.run +
                (start === null ? "." : ", beginning at evaluation " + start + "."));
        },
        choose(button) {
            const form = root().querySelector("[data-form=save]");
            if (!form) return;
            form.querySelector("[name=evaluation]").value = button.dataset.evaluation;
            form.scrollIntoView({block: "center", behavior: calm() ? "auto" : "smooth"});
            form.querySelector("[name=name]").focus({preventScroll: true});
        },
        async save(button) {
            const form = button.closest("[data-form]");
            const value = (name) => form.querySelector("[name=" + name + "]").value;
            await change(button, "save", {
                evaluation: Number(value("evaluation")),
                dtype: value("dtype"),
                name: value("name").trim(),
            });
        },
        async copy(button) {
            const source = byId(button.dataset.copy);
            const done = await copyText(source);
            button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
            setTimeout(() => { button.textContent = "Copy"; }, 2500);
        },
        async send(button) {
            const query = new URLSearchParams({
                payload: button.dataset.payload,
                seed: button.dataset.seed,
            });
            const path = "runs/" + encodeURIComponent(button.dataset.run) + "/infotext?" + query;
            const found = await (await request(path)).json();
            type("automerge_infotext", found.infotext);
            // gradio takes up what was typed a moment later
            setTimeout(() => byId("automerge_send_txt2img").click(), 150);
        },
        async download(button) {
            await post("rewards/" + encodeURIComponent(button.dataset.reward) + "/download");
            // it may be over before the next question
            seenDownloading = true;
            pollNow();
        },
        async cancel() {
            await post("rewards/cancel");
            pollNow();
        },
        async optimise() {
            await formKept();
            await post("lab/optimise");
            const load = byId("automerge_load_draft");
            if (load) load.click();
            openTab("Search");
            tell("The search form has the merge lab's models and parameters.");
        },
        "lab-cancel": () => mergeLab("cancel"),
        "lab-read-cancel": () => mergeLab("reading/cancel"),
        "lab-resume": (button) => mergeLab("kept/" + encodeURIComponent(button.dataset.kept) + "/resume"),
        "lab-discard": (button) => mergeLab("kept/" + encodeURIComponent(button.dataset.kept) + "/discard"),
        zoom: (link) => zoom(link),
        judge: (button) => judge(button),
    };

    function calm() {
        return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    }

    async function change(button, action, body) {
        await post("runs/" + encodeURIComponent(button.dataset.run) + "/" + action, body);
        pollNow();
    }

    async function mergeLab(action) {
        await post("lab/" + action);
        pollNow();
    }

    function select(run) {
        selected = run || "";
        try {
            sessionStorage.setItem(STORED_RUN, selected);
        } catch (error) { /* storage is off: the choice lasts as long as the page */ }
        token = "";
        pollNow();
    }

    function openTab(label) {
        const id = "automerge_tab_" + label.toLowerCase();
        const tabs = byId("automerge_tabs");
        if (!tabs) return;
        const named = byId(id + "-button");
        const buttons = all("button", tabs).filter((b) => b.textContent.trim() === label);
        const button = named || buttons.find(visible) || buttons[0];
        if (button) button.click();
        if (root().getBoundingClientRect().top < 0) root().scrollIntoView({block: "start"});
        pollNow();
    }

    function type(id, text) {
        const box = document.querySelector("#" + id + " textarea, #" + id + " input");
        if (!box) return;
        box.value = text;
        box.dispatchEvent(new Event("input", {bubbles: true}));
    }

    async function copyText(source) {
        try {
            await navigator.clipboard.writeText(source.textContent);
            return true;
        } catch (error) {
            // over plain http browsers give no clipboard: select, and try the old way
            getSelection().selectAllChildren(source);
            return document.execCommand("copy");
        }
    }

    function filterRows(control) {
        const words = control.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
        const view = control.closest("[data-automerge-view]") || root();
        for (const row of all("[data-search]", view)) {
            row.hidden = !words.every((word) => row.dataset.search.includes(word));
        }
    }

    async function onClick(event) {
        const pick = event.target.closest(".automerge-pick[data-payload]");
        if (pick && root() && root().contains(pick)) {
            type("automerge_payload_pick", pick.dataset.payload);
            return;
        }
        if (event.target.closest(STARTERS)) {
            for (const delay of [300, 1000, 2500]) setTimeout(pollNow, delay);
            return;
        }
        const button = event.target.closest("[data-action]");
        if (!button || !button.closest("#automerge_root") || !actions[button.dataset.action]) return;
        // the second click of two would answer a question that nobody has seen
        if (button.dataset.action === "judge" && event.detail > 1) return;
        if (button.dataset.action === "zoom" && (event.ctrlKey || event.metaKey || event.shiftKey)) return;
        event.preventDefault();
        if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
        button.disabled = true;
        tell("");
        try {
            await actions[button.dataset.action](button);
        } catch (error) {
            tell(error.message || String(error), true);
        } finally {
            button.disabled = false;
        }
    }

    function onKey(event) {
        const inTab = root() && visible(root());
        if (!inTab) return;
        if (event.key === "Escape" && document.querySelector(".automerge-lightbox[open]")) {
            // the host would pause the run
            event.stopImmediatePropagation();
            return;
        }
        const start = event.key === "Enter" && (event.ctrlKey || event.metaKey);
        if (start && status && status.busy) {
            // the host would take it for "interrupt and start again"
            event.stopImmediatePropagation();
            event.preventDefault();
            return;
        }
        const lab = byId("automerge_lab_form");
        if (start && lab && visible(lab)) {
            // the host would start a search, whose form is not in sight
            event.stopImmediatePropagation();
            event.preventDefault();
            byId("automerge_lab_save").click();
            return;
        }
        if (judgeByKey(event)) return;
        if (typeof gradioApp === "function") return;
        // the stand-alone page has no host that knows these keys
        const button = start ? byId("automerge_generate") : null;
        if (button) {
            button.click();
            event.preventDefault();
        }
    }

    // --- a recipe that is dropped on the lab ----------------------------------------------------

    const LONGEST_RECIPE = 4 << 20;
    const LONGEST_HEADER = 64 << 20;

    const RECIPE_FIELDS = ["automerge_recipe", "sd_merge_recipe", "sd_merge_models", "mecha_recipe", "sd_mbwrt_receipe"];

    // Of a checkpoint only the recipe in its header is read, here: it may have many gigabytes.
    async function recipeIn(file) {
        const name = file.name.toLowerCase();
        if (name.endsWith(".safetensors")) return recipeInHeader(file);
        if (name.endsWith(".png")) return recipeInPicture(file);
        if (file.size < LONGEST_RECIPE) return file.text();
        throw new Error(file.name + " is too large for a recipe. Drop a recipe, a picture or a merged safetensors file.");
    }

    async function recipeInHeader(file) {
        const none = new Error(file.name + " holds no recipe. Drop a checkpoint that was merged.");
        const start = new DataView(await file.slice(0, 8).arrayBuffer());
        const length = start.byteLength < 8 ? 0 : Number(start.getBigUint64(0, true));
        if (length > LONGEST_HEADER) throw none;
        let metadata = {};
        try {
            metadata = JSON.parse(await file.slice(8, 8 + length).text()).__metadata__ || {};
        } catch (error) {
            throw none;
        }
        const held = Object.entries(metadata).filter(([field]) => RECIPE_FIELDS.includes(field));
        if (!held.length) throw none;
        return JSON.stringify({__metadata__: Object.fromEntries(held)}, null, 2);
    }

    // The infotext that a WebUI puts into its pictures: the chunk tEXt "parameters" of a PNG.
    async function recipeInPicture(file) {
        const bytes = await file.arrayBuffer();
        const view = new DataView(bytes);
        for (let at = 8; at + 12 <= bytes.byteLength;) {
            const length = view.getUint32(at);
            const kind = new TextDecoder("latin1").decode(bytes.slice(at + 4, at + 8));
            if (kind === "IDAT") break;
            const data = new Uint8Array(bytes.slice(at + 8, at + 8 + length));
            const end = data.indexOf(0);
            const key = new TextDecoder("latin1").decode(data.slice(0, Math.max(end, 0)));
            if (kind === "tEXt" && key === "parameters") {
                return new TextDecoder("latin1").decode(data.slice(end + 1));
            }
            if (kind === "iTXt" && key === "parameters") {
                // flags, language and translated keyword end with the second zero after the flags
                const words = data.slice(end + 3);
                const second = words.indexOf(0, words.indexOf(0) + 1);
                return new TextDecoder().decode(words.slice(second + 1));
            }
            at += 12 + length;
        }
        throw new Error(file.name + " holds no infotext. Drop a picture as the WebUI saved it.");
    }

    function onRecipe(event) {
        return event.target.closest && event.target.closest("#automerge_lab_recipe");
    }

    async function onDrop(event) {
        const file = event.dataTransfer && event.dataTransfer.files[0];
        if (!onRecipe(event) || !file) return;
        event.preventDefault();
        event.stopPropagation();
        try {
            type("automerge_lab_recipe", await recipeIn(file));
            // gradio takes up what was typed a moment later
            setTimeout(() => byId("automerge_lab_load").click(), 150);
        } catch (error) {
            tell(error.message || String(error), true);
        }
    }

    // --- pictures in full size ------------------------------------------------------------------

    function zoom(link) {
        const gallery = link.closest("[data-gallery]");
        const links = gallery ? all("[data-action=zoom]", gallery) : [link];
        let position = Math.max(0, links.indexOf(link));
        const dialog = document.createElement("dialog");
        dialog.className = "automerge-lightbox";
        dialog.setAttribute("aria-label", "Picture in full size");
        const image = document.createElement("img");
        const caption = document.createElement("p");
        const close = control("Close", () => dialog.close());
        const bar = document.createElement("div");
        const showAt = (index) => {
            position = (index + links.length) % links.length;
            image.src = links[position].href;
            image.alt = links[position].querySelector("img").alt;
            caption.textContent = links[position].dataset.caption || "";
        };
        if (links.length > 1) {
            bar.append(
                control("Previous", () => showAt(position - 1)),
                control("Next", () => showAt(position + 1)),
            );
        }
        bar.append(close);
        dialog.append(image, caption, bar);
        dialog.addEventListener("keydown", (event) => {
            if (event.key === "ArrowLeft") showAt(position - 1);
            else if (event.key === "ArrowRight") showAt(position + 1);
            else return;
            event.preventDefault();
        });
        dialog.addEventListener("click", (event) => {
            if (event.target === dialog || event.target === image) dialog.close();
        });
        dialog.addEventListener("close", () => {
            dialog.remove();
            const back = document.contains(link) ? link : root().querySelector(nameOf(link) || "x");
            if (back) back.focus({preventScroll: true});
        });
        showAt(position);
        root().append(dialog);
        dialog.showModal();
        close.focus();
    }

    function control(label, act) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "automerge-button";
        button.textContent = label;
        button.addEventListener("click", act);
        return button;
    }

    // --- the user as a judge -------------------------------------------------------------------

    const JUDGE_KEYS = {
        a: "left", arrowleft: "left", b: "right", arrowright: "right", e: "equal", arrowdown: "equal",
    };

    async function judge(button) {
        const slider = button.dataset.slider && byId(button.dataset.slider);
        const value = slider ? Number(slider.value) / Number(slider.max) : button.dataset.value;
        const panel = button.closest(".automerge-judge");
        await change(button, "judge", {
            question: button.dataset.question,
            value: value === "" ? null : Number(value),
            enough: Boolean(button.dataset.enough),
        });
        // a second answer to this question would be refused
        if (panel) panel.inert = true;
    }

    function judgeByKey(event) {
        const panel = root().querySelector(".automerge-judge");
        const busy = event.ctrlKey || event.metaKey || event.altKey || event.repeat;
        if (!panel || panel.inert || busy || !visible(panel)) return false;
        if (document.querySelector("dialog[open]")) return false;
        const slider = panel.querySelector("input[type=range]");
        let name = JUDGE_KEYS[event.key.toLowerCase()];
        if (slider) {
            name = event.key === "Enter" && event.target === slider ? "rate" : "";
        } else if (event.target.closest && event.target.closest(
            "input, textarea, select, [contenteditable], [role=tab], [role=listbox]")) {
            return false;
        }
        const button = name && byId("automerge-judge-" + name);
        if (!button) return false;
        event.preventDefault();
        event.stopImmediatePropagation();
        button.click();
        return true;
    }

    function showRating(slider) {
        const output = slider.closest(".automerge-rating").querySelector("output");
        output.textContent = slider.value;
    }

    // --- beginning ---------------------------------------------------------------------------

    function begin() {
        if (begin.done || !root()) return;
        begin.done = true;
        try {
            selected = sessionStorage.getItem(STORED_RUN) || "";
        } catch (error) { /* storage is off */ }
        document.addEventListener("click", onClick);
        // before the host's own listeners
        window.addEventListener("keydown", onKey, true);
        document.addEventListener("toggle", (event) => {
            if (event.target.open && root() && root().contains(event.target)) render();
        }, true);
        document.addEventListener("input", (event) => {
            if (event.target.matches && event.target.matches("[data-filter]")) filterRows(event.target);
            if (event.target.matches && event.target.matches(".automerge-rating input")) showRating(event.target);
        });
        document.addEventListener("dragover", (event) => {
            if (onRecipe(event)) event.preventDefault();
        }, true);
        document.addEventListener("drop", onDrop, true);
        document.addEventListener("visibilitychange", () => { if (!document.hidden) pollNow(); });
        // a tab that comes into sight is brought up to date at once
        new IntersectionObserver((entries) => {
            if (entries.some((entry) => entry.isIntersecting)) pollNow();
        }).observe(root());
        root().addEventListener("click", (event) => {
            if (!event.target.closest("[role=tab], .tab-nav button")) return;
            for (const delay of [30, 300]) setTimeout(render, delay);
        });
        pollNow();
    }

    function waitForTab() {
        begin();
        if (begin.done) return;
        const observer = new MutationObserver(() => {
            begin();
            if (begin.done) observer.disconnect();
        });
        observer.observe(document.documentElement, {childList: true, subtree: true});
    }

    if (typeof onUiLoaded === "function") onUiLoaded(waitForTab);
    else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", waitForTab);
    else waitForTab();
})();
