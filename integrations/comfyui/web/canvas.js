// What is on the canvas, and what is put there: ComfyUI's own nodes, so that a workflow opens without this pack.
import { app } from "../../scripts/app.js";

// Widgets that name the model of a graph, and ComfyUI's folder of it.
const MODEL_WIDGETS = { ckpt_name: "checkpoints", unet_name: "diffusion_models" };
const NEVER = 2, BYPASSED = 4; // LiteGraph's modes of nodes that do not run
const SPACE = 30;

/** The checkpoint that the graph loads, as {folder, name}; null if it loads none. Its sub-graphs count too. */
export function loadedModel(graph = app.graph) {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    if (node.mode === NEVER || node.mode === BYPASSED) continue;
    for (const widget of node.widgets ?? []) {
      const folder = MODEL_WIDGETS[widget.name];
      if (folder && typeof widget.value === "string") return { folder, name: widget.value };
    }
    const inner = node.subgraph ? loadedModel(node.subgraph) : null;
    if (inner) return inner;
  }
  return null;
}

/** Puts a loader of a hit onto the canvas, and a prompt with its trigger words; returns the loader. */
export async function addLoader(hit, strength = 1) {
  const type = loadedModel()?.folder === "diffusion_models" ? "LoraLoaderModelOnly" : "LoraLoader";
  const loader = LiteGraph.createNode(type);
  if (!loader) throw new Error(`canvas: expected ComfyUI's node ${type}, found none; update ComfyUI`);
  const file = loader.widgets.find((widget) => widget.name === "lora_name");
  // The boxes are filled when the page is loaded.
  if (!file.options?.values?.includes?.(hit.file)) await app.refreshComboInNodes?.();
  loader.title = `LoRA: ${hit.name}`;
  place(loader, middleOfView());
  file.value = hit.file;
  for (const widget of loader.widgets) if (widget.name.startsWith("strength_")) widget.value = strength;
  if (hit.trigger_words.length) addPrompt(loader, hit);
  app.canvas.selectNode?.(loader);
  if (!isInView(loader)) app.canvas.centerOnNode?.(loader);
  app.graph.setDirtyCanvas(true, true);
  return loader;
}

function addPrompt(loader, hit) {
  const prompt = LiteGraph.createNode("CLIPTextEncode");
  if (!prompt) return;
  prompt.title = `Trigger words: ${hit.name}`;
  place(prompt, [loader.pos[0] + loader.size[0] + SPACE, loader.pos[1]]);
  prompt.widgets[0].value = hit.trigger_words.join(", ");
  const output = loader.outputs.findIndex((each) => each.type === "CLIP");
  const input = prompt.inputs.findIndex((each) => each.type === "CLIP");
  if (output >= 0 && input >= 0) loader.connect(output, prompt, input);
}

/** Adds a node at a place, or below what lies there. */
function place(node, [left, top]) {
  const taken = (node_) =>
    left < node_.pos[0] + node_.size[0] && node_.pos[0] < left + node.size[0] &&
    top < node_.pos[1] + node_.size[1] + SPACE && node_.pos[1] < top + node.size[1] + SPACE;
  for (let other; (other = (app.graph.nodes ?? app.graph._nodes).find(taken)); )
    top = other.pos[1] + other.size[1] + 2 * SPACE;
  node.pos = [left, top];
  app.graph.add(node);
}

/** What the person sees, as [left, top, width, height] on the canvas. */
function view() {
  const { offset, scale } = app.canvas.ds;
  const box = app.canvas.canvas.getBoundingClientRect();
  return [-offset[0], -offset[1], box.width / scale, box.height / scale];
}

function middleOfView() {
  const [left, top, width, height] = view();
  return [left + width / 2 - 150, top + height / 2 - 100];
}

function isInView(node) {
  const [left, top, width, height] = view();
  return node.pos[0] >= left && node.pos[1] >= top &&
    node.pos[0] + node.size[0] <= left + width && node.pos[1] + node.size[1] <= top + height;
}
