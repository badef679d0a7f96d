// The interface that limitd-client 2 uses of its protocol package, over protobufjs.
'use strict';

const protobuf = require('protobufjs');

const level = (first) => ({
  remaining: { type: 'int32', id: first },
  reset: { type: 'int32', id: first + 1 },
  limit: { type: 'int32', id: first + 2 },
});
const take = { conformant: { type: 'bool', id: 1 }, delayed: { type: 'bool', id: 2 }, ...level(3) };
const item = { instance: { type: 'string', id: 1 }, ...level(2) };

const types = protobuf.Root.fromJSON({
  nested: {
    Method: { values: { TAKE: 0, WAIT: 1, PUT: 2, STATUS: 3, PING: 4, GET: 5 } },
    ErrorType: { values: { EMPTY: 0, UNKNOWN_BUCKET_TYPE: 1 } },
    Request: {
      fields: {
        text_id: { type: 'string', id: 1 },
        number_id: { type: 'int32', id: 20 },
        type: { type: 'string', id: 2 },
        key: { type: 'string', id: 3 },
        method: { type: 'Method', id: 4 },
        count: { type: 'int32', id: 5 },
        all: { type: 'bool', id: 6 },
        skipResponse: { type: 'bool', id: 7 },
      },
    },
    Failure: { fields: { type: { type: 'ErrorType', id: 1 } } },
    Take: { fields: take },
    Level: { fields: level(1) },
    Item: { fields: item },
    Status: { fields: { items: { rule: 'repeated', type: 'Item', id: 1 } } },
    Pong: { fields: { protocol_version: { type: 'int32', id: 1 } } },
    Response: {
      oneofs: { body: { oneof: ['error', 'take', 'put', 'status', 'pong', 'get'] } },
      fields: {
        text_id: { type: 'string', id: 1 },
        number_id: { type: 'int32', id: 20 },
        error: { type: 'Failure', id: 100 },
        take: { type: 'Take', id: 101 },
        put: { type: 'Level', id: 102 },
        status: { type: 'Status', id: 103 },
        pong: { type: 'Pong', id: 104 },
        get: { type: 'Level', id: 105 },
      },
    },
  },
});
const Request = types.lookupType('Request');
const Response = types.lookupType('Response');

exports.Request = {
  encode({ id, ...rest }) {
    const form = typeof id === 'number' ? { number_id: id } : { text_id: id };
    return Request.encode(Request.fromObject({ ...rest, ...form })).finish();
  },
};

exports.Response = {
  decode(bytes) {
    const message = Response.decode(bytes);
    const shown = { enums: String, defaults: true, oneofs: true };
    const { text_id, number_id, ...rest } = Response.toObject(message, shown);
    const numbered = Object.prototype.hasOwnProperty.call(message, 'number_id');
    return { request_id: numbered ? number_id : text_id, ...rest };
  },
};
