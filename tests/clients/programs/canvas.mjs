// @stable-canvas/comfyui-client: a prompt put together by its Workflow, and the pictures that it hands back. SERVER PROMPT FOLDER
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client, Workflow } from "@stable-canvas/comfyui-client";

const [server, file, folder] = process.argv.slice(2);
const prompt = JSON.parse(readFileSync(file, "utf8"));
const workflow = new Workflow(), made = {};
const isLink = (value) => Array.isArray(value) && value[0] in prompt;
function make(id) {
    if (!(id in made)) {
        const inputs = Object.entries(prompt[id].inputs).map(([name, value]) => [name, isLink(value) ? make(value[0])[value[1]] : value]);
        made[id] = workflow.node(prompt[id].class_type, Object.fromEntries(inputs));
    }
    return made[id];
}
Object.keys(prompt).forEach(make);

const client = new Client({ api_host: new URL(server).host, WebSocket, fetch });
await client.connect();
const { images } = await workflow.invoke_polling(client); // invoke may resolve before a busy server has sent the last of its outputs
for (const [place, { type, data }] of images.entries()) {
    if (type === "url" && data.includes("type=temp")) continue; // what nodes show, and do not save
    const content = type === "url" ? await (await fetch(data)).arrayBuffer() : data;
    writeFileSync(join(folder, `${place}.png`), Buffer.from(content));
}
client.close();
