// Work queue on ipcfs: java WorkQueue.java produce NAME N | consume NAME. See README.md.

import static java.nio.file.StandardOpenOption.CREATE;
import static java.nio.file.StandardOpenOption.READ;
import static java.nio.file.StandardOpenOption.WRITE;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

public class WorkQueue {
    private static final Path MOUNT = Path.of(System.getenv().getOrDefault("IPCFS_MOUNT", "/mnt/ipc"));

    private final FileChannel jobs;
    private final FileChannel lock;
    private final FileChannel counter;

    WorkQueue(String name) throws IOException {
        jobs = open("mq@max_messages=10,max_message_size=64", name);
        lock = open("sem@value=1", name);
        counter = open("shm", name);
    }

    private static FileChannel open(String directory, String name) throws IOException {
        return FileChannel.open(MOUNT.resolve(directory).resolve(name), CREATE, READ, WRITE);
    }

    /** One operation: receives from a queue, waits on a semaphore, reads the counter. */
    private static String read(FileChannel object) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(64);
        object.read(buffer, 0);
        return new String(buffer.array(), 0, buffer.position(), StandardCharsets.UTF_8).strip();
    }

    private static void write(FileChannel object, String text) throws IOException {
        object.write(StandardCharsets.UTF_8.encode(text), 0);
    }

    void produce(int n) throws IOException {
        for (int job = 1; job <= n; job++) {
            write(jobs, Integer.toString(job));
        }
        write(jobs, "end");
    }

    void consume() throws IOException {
        for (String message = read(jobs); !message.equals("end"); message = read(jobs)) {
            long job = Long.parseLong(message);
            System.out.printf("java: job %d, counter %d%n", job, add(job));
        }
    }

    private long add(long job) throws IOException {
        read(lock); // wait
        try {
            String text = read(counter);
            long total = (text.isEmpty() ? 0 : Long.parseLong(text)) + job; // a new segment is empty
            write(counter, String.format("%11d\n", total));
            return total;
        } finally {
            write(lock, "\n"); // post
        }
    }

    public static void main(String[] args) throws IOException {
        if (args.length == 3 && args[0].equals("produce")) {
            new WorkQueue(args[1]).produce(Integer.parseInt(args[2]));
        } else if (args.length == 2 && args[0].equals("consume")) {
            new WorkQueue(args[1]).consume();
        } else {
            System.err.println("usage: java WorkQueue.java produce NAME N | consume NAME");
            System.exit(2);
        }
    }
}
