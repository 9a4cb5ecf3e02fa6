// Judges the server by real clients of rerank APIs:
//
//     run.js list           prints each client's module, name and version as JSON, one a line
//     run.js judge MODULE   has the clients of that module of clients.js call the server that the
//                           environment names
//
// Prints a line for each check, and ends with 1 if one failed. tests/tests/rerank_clients.rs starts the servers.

import { readFileSync } from "node:fs";

import { modules } from "./clients.js";
import { Servers, checks } from "./judge.js";

const [action, module] = process.argv.slice(2);

if (action === "list") {
    for (const [module, clients] of Object.entries(modules)) {
        for (const Client of clients) {
            console.log(JSON.stringify({ module, name: Client.clientName, version: version(Client) }));
        }
    }
} else if (action === "judge" && modules[module]) {
    await judge(module);
} else {
    console.error("run.js list | run.js judge MODULE");
    process.exitCode = 2;
}

async function judge(module) {
    const servers = new Servers(process.env);
    for (const Client of modules[module]) {
        for (const [name, check] of checks(Client)) {
            const what = `${Client.clientName} ${version(Client)}: ${name}`;
            try {
                await check(servers);
                console.log(`ok     ${what}`);
            } catch (error) {
                console.log(`FAILED ${what}: ${error.stack}`);
                process.exitCode = 1;
            }
        }
    }
}

function version(Client) {
    const path = new URL(`node_modules/${Client.package}/package.json`, import.meta.url);
    return JSON.parse(readFileSync(path, "utf8")).version;
}
