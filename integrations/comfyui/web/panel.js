// The sidebar tab: a search box, cards, and what to do when no server answers.
import { api } from "../../scripts/api.js";
import { addLoader, loadedModel } from "./canvas.js";
import { element, percent } from "./elements.js";

const SECONDS = 60; // for an answer of ComfyUI's server, which bounds what it asks Loradex
const ALL = "", AS_LOADED = "*"; // choices of the family besides its name

export class Panel {
  /** Builds the tab. */
  constructor() {
    const search = (event) => { event?.preventDefault?.(); this.start(null); };
    this.text = element("input", { type: "search", placeholder: "What should it draw?", "aria-label": "What should it draw?" });
    this.minus = element("input", { type: "search", placeholder: "but not …", "aria-label": "What should it not draw?" });
    this.family = element("select", { "aria-label": "Family", onchange: search });
    this.message = element("div", { role: "status" });
    this.hits = element("div", { class: "loradex-hits" });
    const form = element("form", { class: "loradex", onsubmit: search },
      this.text, element("div", { class: "loradex-row" }, this.minus, element("button", { type: "submit" }, "Search")),
      this.family, this.message, this.hits);
    for (const kind of ["keydown", "keyup", "paste", "copy"]) // the canvas must not take what is typed here
      form.addEventListener(kind, (event) => event.stopPropagation());
    Object.assign(this, { root: form, like: null, loaded: null, families: {}, request: null });
    this.fillFamilies();
  }

  /** Shows the tab in an element of ComfyUI. */
  async show(parent) {
    parent.replaceChildren(this.root);
    if (!this.hits.childElementCount) await this.greet();
    else await this.readLoaded();
  }

  async greet() {
    this.say("Asking Loradex …");
    const [status] = await Promise.all([this.ask("status"), this.readLoaded()]);
    if (!status) return;
    this.families = status.families;
    this.fillFamilies();
    this.say(`${status.models} LoRAs indexed, ${status.loras} in ComfyUI's folders.`);
  }

  /** Asks for the family of the checkpoint that the graph loads. */
  async readLoaded() {
    const model = loadedModel();
    const key = JSON.stringify(model);
    if (key === this.loadedKey) return;
    let family = null;
    if (model) {
      const answer = await this.ask("family", model, { quiet: true });
      if (!answer) return; // asked again the next time
      family = answer.family === "unknown" ? null : answer.family;
    }
    this.loadedKey = key;
    this.loaded = family;
    this.fillFamilies();
  }

  fillFamilies() {
    const chosen = this.family.options.length ? this.family.value : AS_LOADED;
    const counted = Object.entries(this.families).map(([name, count]) => element("option", { value: name }, `${name} (${count})`));
    const loaded = this.loaded ? `as the checkpoint: ${this.loaded}` : "as the checkpoint: ?";
    this.family.replaceChildren(
      element("option", { value: AS_LOADED }, loaded), element("option", { value: ALL }, "all families"), ...counted);
    this.family.value = chosen;
  }

  /** Starts a search; ``like`` is a hit that others should be like, or null for the texts. */
  async start(like) {
    this.like = like;
    if (!like && !this.text.value.trim() && !this.minus.value.trim()) return this.greet();
    this.hits.replaceChildren();
    this.say("Searching …");
    await this.readLoaded();
    if (!Object.keys(this.families).length) // the server was not there when the tab was opened
      this.ask("status", {}, { quiet: true }).then((status) => status && ((this.families = status.families), this.fillFamilies()));
    await this.more(0);
  }

  async more(offset) {
    const family = this.family.value === AS_LOADED ? this.loaded ?? "" : this.family.value;
    const query = this.like ? { model: this.like.id } : { text: this.text.value, minus: this.minus.value };
    this.request?.abort();
    const request = (this.request = new AbortController());
    const page = await this.ask("search", { ...query, family, offset }, { signal: request.signal });
    if (!page || request !== this.request) return;
    this.hits.append(...page.hits.map((hit) => this.card(hit)));
    if (page.next !== null)
      this.hits.append(element("button", { type: "button", onclick: (event) => { event.target.remove(); this.more(page.next); } }, "More"));
    const where = family ? ` of ${family}` : "";
    const nothing = family ? `No LoRA${where} found; choose another family above.` : "No LoRA found.";
    const what = this.like ? `like ${this.like.name}` : "best first";
    this.say(this.hits.childElementCount ? `LoRAs${where}, ${what}` : nothing);
    if (this.like) this.message.append(" ", element("button", { type: "button", onclick: () => this.start(null) }, "Back"));
  }

  card(hit) {
    const isHere = hit.file !== null;
    const add = async () => {
      try { await addLoader(hit); } catch (error) { this.fail({ message: error.message }); }
    };
    const about = isHere ? `Put a loader of ${hit.file} onto the canvas` : "Not in ComfyUI's LoRA folders";
    const address = api.apiURL(`/loradex/drawing?id=${encodeURIComponent(hit.id)}`);
    const picture = hit.has_drawing ? element("img", { alt: "", loading: "lazy", src: address }) : "no picture";
    const words = hit.trigger_words.slice(0, 4).map((word) => element("span", { title: word }, word));
    const draws = hit.draws.slice(0, 1).map(([label, share]) => `${label} ${percent(share)}`.trim());
    const copy = () => navigator.clipboard?.writeText(hit.trigger_words.join(", "));
    return element("div", { class: `loradex-card${isHere ? "" : " loradex-elsewhere"}` },
      element("button", { type: "button", class: `loradex-picture${hit.has_drawing ? "" : " loradex-none"}`, title: about, "aria-label": about, disabled: !isHere, onclick: add }, picture),
      element("div", { class: "loradex-name", title: hit.file ?? hit.place }, hit.name),
      element("div", { class: "loradex-note" }, [percent(hit.probability), hit.family, ...draws].filter(Boolean).join(" · ")),
      words.length ? element("div", { class: "loradex-words" }, ...words) : null,
      isHere ? null : element("div", { class: "loradex-note" }, "not in ComfyUI's folders"),
      element("div", { class: "loradex-row" },
        element("button", { type: "button", title: about, disabled: !isHere, onclick: add }, "Add"),
        element("button", { type: "button", title: "LoRAs that draw alike", onclick: () => this.start(hit) }, "Similar"),
        words.length ? element("button", { type: "button", title: "Copy the trigger words", onclick: copy }, "Copy") : null));
  }

  /** The answer of a route; null if it failed, which is shown unless ``quiet``. */
  async ask(route, query = {}, { signal, quiet = false } = {}) {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), SECONDS * 1000);
    signal?.addEventListener("abort", () => limit.abort());
    try {
      const response = await api.fetchApi(`/loradex/${route}?${new URLSearchParams(query)}`, { signal: limit.signal });
      const answer = await response.json();
      if (!answer.error) return answer;
      if (!quiet) this.fail(answer.error);
    } catch (error) {
      if (!quiet && !signal?.aborted)
        this.fail({ message: `ComfyUI: expected an answer within ${SECONDS} s, found none; see its log, and try again` });
    } finally {
      clearTimeout(timer);
    }
    return null;
  }

  say(text) { this.message.className = "loradex-note"; this.message.replaceChildren(text); }

  fail({ message, command }) {
    this.message.className = "loradex-error";
    this.message.replaceChildren(message, command ? element("code", {}, command) : "",
      element("button", { type: "button", onclick: () => this.start(this.like) }, "Try again"));
  }
}
