import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Apache's own client, by the remoting protocol: "read NAMESRV TOPIC GROUP COUNT" or "write NAMESRV TOPIC GROUP". */
public final class JavaPeer {
    public static void main(String[] words) {
        int code = 1;
        try {
            if (words[0].equals("read")) {
                read(words[1], words[2], words[3], Integer.parseInt(words[4]));
            } else {
                write(words[1], words[2], words[3]);
            }
            code = 0;
        } catch (Exception fault) {
            System.out.println(fault);
        }
        System.exit(code); // the client's own threads would keep the process
    }

    private static void read(String nameServer, String topic, String group, int count) throws Exception {
        CountDownLatch left = new CountDownLatch(count);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServer);
        consumer.setMqClientApiTimeout(30000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt one : messages) {
                show(one);
                left.countDown();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        boolean all = left.await(90, TimeUnit.SECONDS);
        consumer.shutdown();
        if (!all) {
            throw new IllegalStateException(left.getCount() + " messages did not come");
        }
    }

    private static void show(MessageExt one) {
        System.out.println("message " + String.join(" ", "id=" + one.getMsgId(), "tag=" + one.getTags(),
                "keys=" + one.getKeys(), "traceparent=" + one.getUserProperty("traceparent"),
                "topic=" + one.getUserProperty("mqtt.topic"), "bytes=" + one.getBody().length,
                "start=" + new String(one.getBody(), 0, Math.min(8, one.getBody().length), StandardCharsets.UTF_8)));
    }

    private static void write(String nameServer, String topic, String group) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(group);
        producer.setNamesrvAddr(nameServer);
        producer.setMqClientApiTimeout(30000);
        producer.setSendMsgTimeout(30000);
        producer.start();
        System.out.println("sent " + producer.send(message(topic, "small", 5)).getMsgId());
        System.out.println("sent " + producer.send(message(topic, "large", 20000)).getMsgId()); // compressed
        List<Message> batch = new ArrayList<>();
        batch.add(message(topic, "first", 5));
        batch.add(message(topic, "second", 6));
        System.out.println("sent " + producer.send(batch).getMsgId());
        producer.shutdown();
    }

    private static Message message(String topic, String start, int size) {
        StringBuilder text = new StringBuilder(start);
        while (text.length() < size) {
            text.append(" java");
        }
        text.setLength(size);
        Message made = new Message(topic, "tag-j", "k1 k2", text.toString().getBytes(StandardCharsets.UTF_8));
        if (System.getProperty("traceparent") != null) {
            made.putUserProperty("traceparent", System.getProperty("traceparent"));
        }
        return made;
    }
}
