// The clients: each is a class that says what it is, how it is pointed at a server, and what it makes of
// refusals. `rank` gives [{index, score, text}], best first.

import { createCohere } from "@ai-sdk/cohere";
import { createTogetherAI } from "@ai-sdk/togetherai";
import { APICallError, RetryError, rerank } from "ai";
import { Cohere, CohereClient, CohereClientV2, CohereError } from "cohere-ai";
import { VoyageAIClient, VoyageAIError } from "voyageai";

class CohereV1 {
    static clientName = "cohere-ai CohereClient";
    static package = "cohere-ai";
    static model = "rerank-v3.5";
    static errors = {
        400: Cohere.BadRequestError,
        401: Cohere.UnauthorizedError,
        404: Cohere.NotFoundError,
        424: CohereError,
        429: Cohere.TooManyRequestsError,
    };
    static tries = 3;

    constructor(url, key) {
        this.client = new CohereClient({ token: key, environment: url });
    }

    async rank(query, documents, model, topN) {
        return cohereResults(await this.client.rerank({ query, documents, model, topN }));
    }

    async rankWithDocuments(query, documents, model) {
        return cohereResults(await this.client.rerank({ query, documents, model, returnDocuments: true }));
    }
}

class CohereV2 extends CohereV1 {
    static clientName = "cohere-ai CohereClientV2";

    constructor(url, key) {
        super(url, key);
        this.client = new CohereClientV2({ token: key, environment: url });
    }

    // The second version of the API does not send documents back.
    rankWithDocuments = undefined;
}

class Voyage {
    static clientName = "voyageai (JavaScript)";
    static package = "voyageai";
    static model = "rerank-2.5";
    static errors = {
        400: VoyageAIError,
        401: VoyageAIError,
        404: VoyageAIError,
        424: VoyageAIError,
        429: VoyageAIError,
    };
    static tries = 3;

    constructor(url, key) {
        // With `returnDocuments` it sends what Jina's clients send, but wants another answer.
        this.client = new VoyageAIClient({ apiKey: key, environment: `${url}/voyage/v1` });
    }

    async rank(query, documents, model, topK) {
        return voyageResults(await this.client.rerank({ query, documents, model, topK }));
    }

    async rankWithDocuments(query, documents, model) {
        return voyageResults(await this.client.rerank({ query, documents, model, returnDocuments: true }));
    }
}

// Each package of the AI SDK may have its own class of this name; users ask by `isInstance`.
class CallError extends Error {
    constructor(error) {
        super(error.message);
        this.statusCode = error.statusCode;
        this.body = error.responseBody;
    }
}

class AiSdkCohere {
    static clientName = "AI SDK, @ai-sdk/cohere";
    static package = "@ai-sdk/cohere";
    static model = "rerank-v3.5";
    static errors = {
        400: CallError,
        401: CallError,
        404: CallError,
        424: CallError,
        429: CallError,
    };
    static tries = 3;

    constructor(url, key) {
        this.provider = createCohere({ apiKey: key, baseURL: `${url}/v2` });
    }

    async rank(query, documents, model, topN) {
        try {
            const answer = await rerank({ model: this.provider.reranking(model), query, documents, topN });
            return answer.ranking.map((result) => ({ index: result.originalIndex, score: result.score }));
        } catch (error) {
            // What it says after its last try is within.
            const last = RetryError.isInstance(error) ? error.lastError : error;
            throw APICallError.isInstance(last) ? new CallError(last) : last;
        }
    }
}

class AiSdkTogether extends AiSdkCohere {
    static clientName = "AI SDK, @ai-sdk/togetherai";
    static package = "@ai-sdk/togetherai";
    static model = "BAAI/bge-reranker-base";

    constructor(url, key) {
        super(url, key);
        this.provider = createTogetherAI({ apiKey: key, baseURL: `${url}/v1` });
    }
}

function cohereResults(answer) {
    return answer.results.map((result) => ({
        index: result.index,
        score: result.relevanceScore,
        text: result.document?.text,
    }));
}

function voyageResults(answer) {
    return answer.data.map((result) => ({
        index: result.index,
        score: result.relevanceScore,
        text: result.document,
    }));
}

export const modules = {
    ai_sdk: [AiSdkCohere, AiSdkTogether],
    cohere_ai: [CohereV1, CohereV2],
    voyageai: [Voyage],
};
