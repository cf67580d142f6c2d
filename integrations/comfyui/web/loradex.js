// Loradex in ComfyUI's front end: the sidebar tab, a setting, and the lists of hits on nodes.
import { app } from "../../scripts/app.js";
import { element } from "./elements.js";
import { Panel } from "./panel.js";

const NODES = ["LoradexSearch", "LoradexWords"];

/** Adds a list to a node that shows what it found; on a search node a click chooses a hit. */
function addLines(node) {
  const lines = element("div", { class: "loradex-lines" });
  const index = node.widgets?.find((widget) => widget.name === "index");
  const choose = (number) => {
    index.value = number;
    [...lines.children].forEach((line, at) => line.setAttribute("aria-pressed", String(at + 1 === number)));
    node.setDirtyCanvas?.(true, true);
  };
  const widget = node.addDOMWidget("found", "loradex", lines, { serialize: false, getMinHeight: () => 80 });
  widget.serialize = false; // of the workflow; the option is that of the prompt
  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.apply(this, arguments);
    lines.replaceChildren(...(output?.loradex ?? []).map((text, at) => {
      const button = index ? { role: "button", tabIndex: 0, onclick: () => choose(at + 1) } : {};
      return element("div", { title: text, ...button }, text);
    }));
    if (index) choose(index.value);
  };
}

document.head.append(element("link", { rel: "stylesheet", href: new URL("./loradex.css", import.meta.url).href }));

app.registerExtension({
  name: "Loradex",
  settings: [
    {
      id: "Loradex.Server.Address",
      category: ["Loradex", "Server", "Address"],
      name: "Address of the server",
      tooltip: "Where `loradex serve --api` runs. A login stands in a file of ComfyUI, never here.",
      type: "text",
      defaultValue: "http://127.0.0.1:7860",
    },
  ],
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) addLines(node);
  },
  setup() {
    const panel = new Panel();
    app.extensionManager?.registerSidebarTab?.({
      id: "loradex",
      icon: "pi pi-search",
      title: "Loradex",
      tooltip: "Loradex: find LoRAs by what their weights say",
      type: "custom",
      render: (parent) => { panel.show(parent); },
    });
  },
});
