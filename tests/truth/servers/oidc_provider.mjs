// panva's oidc-provider: `node oidc_provider.mjs PORT`. Tokens, errors and endpoints are its own.
// `/_control` is ours: it issues a first refresh token in place of a browser login, moves the clock,
// takes clients and users away, and so on.
import Provider from 'oidc-provider';
import { json } from 'node:stream/consumers';

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const users = new Set(['alice', 'bob', 'carol']);
const store = new Map();
let broken = false;

// The simplest adapter: one Map, nothing forgotten on expiry, and a fault to switch on.
class Store {
  constructor(kind) { this.kind = kind; }

  key(id) { return `${this.kind}:${id}`; }

  get(id) {
    if (broken && this.kind === 'RefreshToken') throw new Error('storage is down');
    return store.get(this.key(id));
  }

  async upsert(id, payload) { store.set(this.key(id), payload); }

  async find(id) { return this.get(id); }

  async findByUid() { return undefined; }

  async findByUserCode() { return undefined; }

  async consume(id) { this.get(id).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { store.delete(this.key(id)); }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of store) if (payload.grantId === grantId) store.delete(key);
  }
}

const client = (id, more = {}) => store.set(`Client:${id}`, {
  client_id: id,
  client_secret: `${id}-secret`,
  redirect_uris: ['https://app.example/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  ...more,
});

for (const id of ['app', 'other', 'doomed', 'fixed']) client(id);
client('app-post', { token_endpoint_auth_method: 'client_secret_post' });
client('signed', { token_endpoint_auth_method: 'client_secret_jwt', client_secret: 'a-secret-of-thirty-two-characters' });
client('bound', { dpop_bound_access_tokens: true });
client('limited', { grant_types: ['authorization_code'] });
client('machine', { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] });

const provider = new Provider(issuer, {
  adapter: Store,
  findAccount: (ctx, id) => (users.has(id) ? { accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) } : undefined),
  claims: { openid: ['sub'], email: ['email'] },
  scopes: ['openid', 'offline_access', 'email', 'read'],
  rotateRefreshToken: (ctx) => ctx.oidc.client.clientId !== 'fixed',
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
});

async function mint({ client: clientId, user, scope }) {
  const found = await provider.Client.find(clientId);
  const grant = new provider.Grant({ accountId: user, clientId });
  grant.addOIDCScope(scope);
  const shared = {
    accountId: user, client: found, grantId: await grant.save(), gty: 'authorization_code', scope,
  };
  return {
    refresh_token: await new provider.RefreshToken(shared).save(),
    access_token: await new provider.AccessToken(shared).save(),
    grant_id: shared.grantId,
  };
}

function expire(kind, id) {
  const now = Math.floor(Date.now() / 1000);
  Object.assign(store.get(`${kind}:${id}`), { iat: now - 7200, exp: now - 3600 });
}

const actions = {
  mint,
  age_refresh_token: ({ token }) => expire('RefreshToken', token),
  age_access_token: ({ token }) => expire('AccessToken', token),
  drop_grant: ({ grant }) => { store.delete(`Grant:${grant}`); },
  delete_user: ({ user }) => { users.delete(user); },
  delete_client: ({ client: id }) => { store.delete(`Client:${id}`); },
  allow_refresh: ({ client: id }) => { client(id); },
  break_storage: ({ broken: now }) => { broken = now; },
  expire_secret: ({ client: id, expired }) => client(id, expired ? { client_secret_expires_at: 1 } : {}),
};

provider.use(async (ctx, next) => {
  if (ctx.path !== '/_control') return next();
  const { action, ...order } = await json(ctx.req);
  ctx.body = (await actions[action](order)) ?? {};
  return undefined;
});

provider.listen(port, '127.0.0.1');
