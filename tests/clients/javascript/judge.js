// What every client is asked to do, and what must come of it: the checks of ../python/judge.py.

import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const QUERY = "smart watch for running";
const DOCUMENTS = [
    "Cast iron pan, 28 cm, for gas and induction",
    "Smart watch with GPS for running and cycling",
    "Watch strap of brown leather",
];
const BEST = 1;
const UNKNOWN = "no-such-model";
const FAULTY = "trap"; // fails in every call
const PATIENCE_MS = 30_000;

// Where the client's server is, the key that it asks for, and its admin plane.
export class Servers {
    constructor({ SERVER, SERVER_KEY, ADMIN, ADMIN_TOKEN }) {
        this.url = SERVER;
        this.key = SERVER_KEY;
        this.adminUrl = ADMIN;
        this.adminToken = ADMIN_TOKEN;
    }

    // The sum of a metric's samples.
    async metric(name) {
        const headers = { Authorization: `Bearer ${this.adminToken}` };
        const answer = await fetch(`${this.adminUrl}/metrics`, { headers });
        const samples = (await answer.text()).split("\n");
        return samples
            .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
            .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    }

    // Has a policy that never ends hold all the room there is, so that all else is refused, until the
    // end or until what `action` gets is called.
    async whileBusy(action) {
        const { hostname, port } = new URL(this.url);
        const body = JSON.stringify({ query: QUERY, documents: DOCUMENTS, timeout_ms: 60_000 });
        const holder = createConnection({ host: hostname, port: Number(port) });
        holder.write(
            "POST /v1/rerank/spin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
                `Authorization: Bearer ${this.key}\r\n` +
                `Content-Length: ${body.length}\r\n\r\n${body}`,
        );
        try {
            await this.until("rerankd_admitted_requests", 1);
            await action(() => holder.destroy());
        } finally {
            holder.destroy();
        }
        await this.until("rerankd_admitted_requests", 0);
    }

    // Waits until a metric has this value.
    async until(metric, value) {
        const until = Date.now() + PATIENCE_MS;
        while ((await this.metric(metric)) !== value) {
            assert(Date.now() < until, `not within ${PATIENCE_MS} ms: ${metric} is ${value}`);
            await sleep(10);
        }
    }
}

// By name, everything that a client is asked to do.
export function checks(Client) {
    const found = [
        ["ranking", (servers) => checkRanking(Client, servers)],
        ["top_n", (servers) => checkTopN(Client, servers)],
    ];
    if (new Client("http://127.0.0.1", "key").rankWithDocuments) {
        found.push(["documents", (servers) => checkDocuments(Client, servers)]);
    }
    for (const status of Object.keys(Client.errors)) {
        found.push([status, (servers) => checkError(Client, servers, Number(status))]);
    }
    found.push(["retry", (servers) => checkRetry(Client, servers)]);
    return found;
}

async function checkRanking(Client, servers) {
    const results = await new Client(servers.url, servers.key).rank(QUERY, DOCUMENTS, Client.model, undefined);
    assert.deepEqual(results.map((result) => result.index).sort(), [0, 1, 2]);
    assert.equal(results[0].index, BEST, JSON.stringify(results));
    checkScores(results);
}

async function checkTopN(Client, servers) {
    const client = new Client(servers.url, servers.key);
    const all = await client.rank(QUERY, DOCUMENTS, Client.model, undefined);
    for (const topN of [1, 2, 3, 10]) {
        assert.deepEqual(await client.rank(QUERY, DOCUMENTS, Client.model, topN), all.slice(0, topN));
    }
}

async function checkDocuments(Client, servers) {
    const results = await new Client(servers.url, servers.key).rankWithDocuments(QUERY, DOCUMENTS, Client.model);
    assert.equal(results[0].index, BEST, JSON.stringify(results));
    checkScores(results);
    for (const result of results) {
        assert.equal(result.text, DOCUMENTS[result.index]);
    }
}

// The server has room again after it has refused once.
async function checkRetry(Client, servers) {
    const client = new Client(servers.url, servers.key);
    const before = await servers.metric("rerankd_requests_total");
    await servers.whileBusy(async (makeRoom) => {
        const answer = client.rank(QUERY, DOCUMENTS, Client.model, undefined);
        await servers.until("rerankd_requests_total", before + 1);
        makeRoom();
        const results = await answer;
        assert.equal(results[0].index, BEST, JSON.stringify(results));
    });
}

function checkScores(results) {
    const scores = results.map((result) => result.score);
    assert(scores.every((score) => score >= 0 && score <= 1), `not in [0, 1]: ${scores}`);
    assert.deepEqual(scores, scores.toSorted((one, other) => other - one), "not best first");
    assert(scores[0] > scores.at(-1), `all the same: ${scores}`);
}

// Causes a status, looks at what the client throws, and counts its requests.
async function checkError(Client, servers, status) {
    const [query, model, words] = {
        400: ["", Client.model, "empty"],
        401: [QUERY, Client.model, "key"],
        404: [QUERY, UNKNOWN, UNKNOWN],
        424: [QUERY, FAULTY, FAULTY],
        429: [QUERY, Client.model, ""],
    }[status];
    const client = new Client(servers.url, status === 401 ? `not-${servers.key}` : servers.key);
    let thrown;
    let sent;
    const call = async () => {
        const before = await servers.metric("rerankd_requests_total");
        thrown = await client.rank(query, DOCUMENTS, model, undefined).then(
            (results) => assert.fail(`no error, but ${JSON.stringify(results)}`),
            (error) => error,
        );
        sent = (await servers.metric("rerankd_requests_total")) - before;
    };
    await (status === 429 ? servers.whileBusy(call) : call());
    assert.equal(thrown.constructor, Client.errors[status], `${thrown}`);
    assert.equal(thrown.statusCode, status);
    assert(`${thrown} ${JSON.stringify(thrown.body)}`.includes(words), `no \`${words}\` in what it says: ${thrown}`);
    assert.equal(sent, status === 429 ? Client.tries : 1, "requests sent");
}
