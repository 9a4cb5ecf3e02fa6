// Sends bodies that are refused before they were read, by clients that send all of them first. Prints a line
// of JSON for each client: what it got where the body is too large, without a key, and on a path that is none.
// tests/tests/early_refusals.rs starts the server.

import http from "node:http";

const server = process.env.SERVER;
const body = Buffer.alloc(24 << 20, " ");
const key = { authorization: `Bearer ${process.env.SERVER_KEY}` };
const cases = {
    large: ["/v1/rerank", key],
    "no key": ["/v1/rerank", {}],
    nowhere: ["/nowhere", key],
};

async function byFetch(url, headers) {
    const answer = await fetch(url, { method: "POST", headers, body });
    return { status: answer.status, body: await answer.text() };
}

function byHttp(url, headers) {
    return new Promise((resolve, reject) => {
        const request = http.request(url, { method: "POST", headers }, (answer) => {
            const parts = [];
            answer.on("data", (part) => parts.push(part));
            answer.on("end", () => resolve({ status: answer.statusCode, body: Buffer.concat(parts).toString() }));
        });
        request.on("error", reject);
        request.end(body);
    });
}

for (const client of [byFetch, byHttp]) {
    const got = { client: client.name };
    for (const [name, [path, headers]] of Object.entries(cases)) {
        got[name] = await client(server + path, { "content-type": "application/json", ...headers });
    }
    console.log(JSON.stringify(got));
}
process.exit(0);
