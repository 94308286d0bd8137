/* Which picture a Drag Target draws on: the way through ComfyUI's graph from its input to whatever makes the picture. */
import { app } from "../../scripts/app.js";
import { say } from "./words.js";

const INPUT = "image";
const openedThrough = new Map(); // by the id of a subgraph: the id of the subgraph node through which it was last opened

/** From now on notes through which of the nodes that share a subgraph it is looked at. */
export function noteOpenedSubgraphs() {
  app.canvas.canvas.addEventListener("subgraph-opened", ({ detail }) => openedThrough.set(detail.subgraph.id, detail.fromNode.id));
}

/** The subgraph node through which a subgraph was opened, else the first that has it. */
function hostOf(subgraph) {
  const graphs = [subgraph.rootGraph, ...subgraph.rootGraph.subgraphs.values()];
  const hosts = graphs.flatMap((graph) => graph.nodes).filter((node) => node.subgraph === subgraph);
  return hosts.find((node) => node.id === openedThrough.get(subgraph.id)) ?? hosts[0];
}

/** The node that a link comes from, seen through reroutes and the borders of subgraphs. `hosts` are the subgraph nodes around
 * it as far as they are known, the outermost first. */
function sourceOf(graph, linkId, hosts) {
  const link = graph.getLink(linkId);
  if (!link) return undefined;
  if (link.originIsIoNode) { // from outside of this subgraph
    const host = hosts.at(-1) ?? hostOf(graph);
    return host && sourceOf(host.graph, host.inputs[link.origin_slot]?.link, hosts.slice(0, -1));
  }
  const node = graph.getNodeById(link.origin_id);
  if (node?.subgraph) return sourceOf(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds[0], [...hosts, node]);
  return node?.type === "Reroute" ? sourceOf(graph, node.inputs[0].link, hosts) : node;
}

/** The node and the slot behind an input of a subgraph node, and the subgraph nodes around it. Of other nodes, the node itself. */
export function targetOf(node, slot, hosts = []) {
  if (!node?.subgraph) return { node, slot, hosts };
  const link = node.subgraph.getLink(node.subgraph.inputs[slot]?.linkIds[0]);
  return targetOf(link && node.subgraph.getNodeById(link.target_id), link?.target_slot, [...hosts, node]);
}

const outputsOf = (node) => app.nodeOutputs[node.graph.isRootGraph ? node.id : `${node.graph.id}:${node.id}`];

/** Follows what comes into the Drag Target behind an input. Each call of what it returns looks again. */
export function pictureFollower() {
  let last;
  return (owner, slot) => {
    const { node, hosts } = targetOf(owner, slot);
    const source = node && sourceOf(node.graph, node.inputs[node.findInputSlot(INPUT)].link, hosts);
    if (!source) return { message: say("connect_picture") };
    if (last && source !== last) delete outputsOf(node)?.readout_picture; // it came from elsewhere
    last = source;
    const shown = outputsOf(source)?.images?.[0];
    const ran = outputsOf(node)?.readout_picture?.[0];
    const picture = source.type.startsWith("LoadImage") ? shown ?? ran : ran ?? shown; // Load Image shows what it holds now
    return { picture, message: say("run_once") };
  };
}
